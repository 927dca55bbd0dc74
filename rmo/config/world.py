"""Where prompts and texts come from: what every world's config has, the synthetic world, real text."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from rmo.config.identity import changed


@dataclass(frozen=True)
class WorldConfig:
    """What every config of a world has; a dataclass of this kind is registered with its world (rmo/worlds/world.py)."""

    prompt: int
    """P, longest prompt in tokens."""
    response: int
    """R, longest response in tokens, EOS included."""

    may_be_zero: ClassVar[tuple[str, ...]] = ()  # names of its numbers that need not be positive

    @property
    def tokens(self) -> int:
        """V; 0 where only the sources tell it."""
        return 0

    @property
    def read_length(self) -> int:
        """Tokens that an RM's own tokenizer may make of a text: twice prompt and response, and 64 for a template."""
        return 2 * (self.prompt + self.response) + 64


@dataclass(frozen=True)
class World(WorldConfig):
    """The synthetic world: where prompts and texts come from and what the annotator likes (rmo/worlds/synthetic.py)."""

    seed: int = 0
    """Draws the world itself: its grammar and its annotator."""
    edition: Literal[1, 2] = changed(2, old=1)
    """2: texts have a manner, features are rates. 1: as before that (rmo/worlds/first_edition.py)."""
    vocab: int = 64
    """V, tokens including pad, bos and eos."""
    prompt: int = 6
    """P, longest prompt in tokens (left-padded)."""
    response: int = changed(32, old=18)
    """R, longest response in tokens, EOS included (right-padded)."""
    states: int = 8
    """Hidden topics of the corpus grammar."""
    questions: int = changed(2, old=4)
    """Kinds of prompt: what its last word asks. Sways the corpus's answer and selects what conditionals want."""
    answer: float = 0.7
    """How strongly the corpus's answers depend on the question (standard deviation of log-odds)."""
    bigram: float = changed(1.3, old=1.0)
    """How strongly a word depends on the one before it (standard deviation of log-odds)."""
    manner: float = changed(2.0, old=1.6)
    """How strongly a text's manner sways its words, in log-odds per standard deviation of the manner."""
    pair_manner: float = changed(2.0, old=1.6)
    """The same of the second word of a pair, where the first came before it."""
    shortest: int = changed(16, old=10)
    """Words a text has at least."""
    stop: float = changed(0.1, old=0.12)
    """Chance that a text ends at each token after that."""
    unigrams: int = 3
    """Annotator features: the rate of the words of one set (easy: any RM can learn them)."""
    conditionals: int = 3
    """The rate of the words of a set that the prompt's last word selects (harder: needs attention to the prompt)."""
    pairs: int = changed(3, old=8)
    """The rate of a word of one set followed by one of another, 1 to 3 words on (hardest)."""
    set_share: float = changed(0.15, old=0.04)
    """Share of the words in the set of a unigram or conditional feature."""
    pair_share: float = changed(0.4, old=0.2)
    """Share of the words in either set of a pair feature."""
    weights: tuple[float, float, float, float] = changed((0.3, 0.3, 0.3, 0.1), old=(0.35, 0.25, 0.25, 0.15))
    """Shares of the annotator's score: unigrams, conditionals, pairs, length."""
    decay: float = 0.5
    """Power law of the weights inside each kind: the i-th feature weighs i**-decay."""
    optimum: tuple[float, float] = changed((0.5, 1.3), old=(0.7, 1.4))
    """Range of the sweet spots, in standard deviations above what the corpus does by default."""
    length_optimum: float = changed(0.0, old=0.3)
    """The sweet spot of a response's length, in the same unit; 0: what the corpus does is right."""
    width: float = changed(0.8, old=0.6)
    """Width of a sweet spot, as a multiple of its optimum or, where that is nearer, of one standard deviation."""
    guard: tuple[float, float] = changed((2.2, 0.8), old=(2.5, 0.8))
    """Of fluency and variety: how many standard deviations below the corpus cost nothing, and the width of the loss."""

    may_be_zero = ("seed", "answer", "bigram", "unigrams", "conditionals", "pairs", "length_optimum", "decay", "stop")

    @property
    def tokens(self) -> int:
        return self.vocab


@dataclass(frozen=True)
class Text(WorldConfig):
    """Real text in the world's place: where prompts and demonstrations come from (shapes: rmo/worlds/README.md)."""

    prompts: str = ""
    """A JSON, JSONL, Parquet or Arrow file, a directory of such or one that datasets or tfds wrote, tfds:NAME/SPLIT,
    hub:OWNER/NAME/FILES, or python:MODULE:FUNCTION, a function that gives rows."""
    demonstrations: str = ""
    """Of the same kinds, rows with a prompt and a response (of a comparison, the preferred one); for SFT."""
    tokenizer: str = ""
    """Directory or hub name; bpe:SIZE: a byte-level BPE of so many tokens, trained on the demonstrations; empty: that
    of the policy's checkpoint."""
    template: str = "{prompt}"
    """What the policy is shown of a prompt; {prompt} stands for its text."""
    chat: bool = False
    """Show the prompt through the policy's chat template, after `template`. Prompts of several turns need it."""
    prompt: int = 128
    """P, longest prompt in tokens; longer ones are left out, and counted."""
    response: int = 128
    """R, longest response in tokens, EOS included."""
    longest: int = 0
    """Longest text, in tokens, that an RM with its own tokenizer is shown; longer ones lose their beginning, and are
    counted. 0: twice prompt and response, and 64 for a template."""
    tolerance: float = 0.01
    """Share of a source's rows that may be malformed; more stop the run."""
    judge: str = ""
    """MODULE:FUNCTION, from a prompt and a response (two strings) to a number: what gold of kind annotator learns from.
    It is read beside gold along every path, whatever gold is. Empty: there is none."""

    may_be_zero = ("longest", "tolerance")

    @property
    def read_length(self) -> int:
        """Tokens that an RM's own tokenizer may make of a text."""
        return self.longest or super().read_length
