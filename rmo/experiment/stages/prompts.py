"""Real text only: prompts and demonstrations, read and tokenised with the policy's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rmo import config
from rmo.checkpoints import hf, tokenizers
from rmo.experiment import gold
from rmo.experiment.run import Run, tokenizer_of
from rmo.runtime import hosts
from rmo.worlds import real_text, tokenization
from rmo.worlds.judged_text import JudgedTextWorld

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def prompts(run: Run, out: Path) -> None:
    """Reads the sources, and refuses here what would stop a later stage, hours on."""
    e, c = run.experiment, run.experiment.world
    assert isinstance(c, config.Text)
    if c.tokenizer.startswith(tokenization.BPE):
        tokenizer = trained_tokenizer(c, out)
    else:
        tokenizer = tokenizer_of(c.tokenizer or e.policy.checkpoint)
    if e.policy.checkpoint and not tokenization.extends(tokenizer_of(e.policy.checkpoint), tokenizer):
        raise hf.CheckpointError(f"{c.tokenizer} has other ids than the tokenizer of {e.policy.checkpoint}, the policy")
    if hosts.writer():
        info = real_text.write(c, tokenizer, e.policy.vocab or len(tokenizer), out)
        print(f"prompts: {info['prompts']:,} from {info['rows']}; {info['longer_than_prompt']:,} too long")
        if c.demonstrations:
            print(f"demonstrations: {info['demonstrations']['texts']:,} from {info['demonstrations']['rows']}")
        if e.gold.comparisons:
            people = real_text.write_comparisons(e.gold.comparisons, c.tolerance, out)
            print(f"comparisons of people: {people}")
    tokenizers.save_tokenizer(tokenizer, out / "tokenizer")
    world = run.world
    if isinstance(world, JudgedTextWorld) and hosts.writer():
        world.remember_judge()
    for shape in (*e.policies, e.gold.model, *e.proxies.sizes):
        if shape.checkpoint:
            run.check_checkpoint(shape)
            check_dialogues(run, shape, out)
    needed = {"read": e.bon.prompts, "comparisons": e.comparisons.prompts, "optimise": e.ppo.prompts}
    for purpose, size in needed.items():
        run.world.prompts(run.rng(purpose), size, purpose)
    if c.demonstrations:
        run.world.demonstrations(run.rng("prompts"), demonstrations_needed(e))
    if e.gold.comparisons:
        check_people(run, out)


def trained_tokenizer(c: config.Text, out: Path) -> PreTrainedTokenizerFast:
    """A tokenizer of the run's own texts, which one process trains and all find in `out`."""
    directory = out / "tokenizer"
    if hosts.writer():
        size = int(c.tokenizer.removeprefix(tokenization.BPE))
        tokenizers.save_tokenizer(tokenizers.train_bpe(real_text.training_texts(c), size), directory)
    else:
        hosts.barrier(f"tokenizer in {directory}")
    return tokenizers.load_tokenizer(directory)


def demonstrations_needed(e: config.Experiment) -> int:
    """Most demonstrations that a later stage asks for at once."""
    trunk = e.proxies.trunk.texts if any(map(e.proxies.from_language_model, e.proxies.sizes)) else 0
    of_gold = -(-e.gold.texts // 4) if e.gold.kind == "annotator" else 0
    gold_trunk = e.gold.trunk.texts if e.gold.start == "language_model" else 0
    return max(e.sft.texts, trunk, of_gold, gold_trunk)


def check_dialogues(run: Run, shape: config.Model, out: Path) -> None:
    """Refuse prompts of several turns that a model with a tokenizer of its own cannot be shown; `real_text.write` has
    shown them to the policy."""
    c = run.experiment.world
    assert isinstance(c, config.Text)
    if shape.reads != "ids":
        prompts = real_text.TextWorld(c, out).texts.values()
        real_text.check_dialogues(prompts, c.prompts, shape.reads, tokenizer_of(shape.checkpoint))


def check_people(run: Run, out: Path) -> None:
    """Refuse human comparisons that gold could not be shown, or none of which is short enough."""
    e, c = run.experiment, run.experiment.world
    assert isinstance(c, config.Text)
    people, reads = real_text.read_comparisons(out / "people.jsonl"), e.gold.model.reads
    own = run.world.tokenizer if reads == "ids" else tokenizer_of(e.gold.model.checkpoint)
    if reads != "ids" or c.chat:
        real_text.check_dialogues((row.prompt for row in people), e.gold.comparisons, reads, own)
    elif talk := next((row.prompt for row in people if not isinstance(row.prompt, str)), None):
        real_text.encode_prompt(c, own, talk, real_text.named(e.gold.comparisons, talk), len(own))  # says what is wrong
    gold.check_comparisons(run, own, people)
