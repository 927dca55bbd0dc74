"""Real text in the synthetic world's place: prompts and demonstrations, read and tokenised once for a whole run.

What the `prompts` stage writes is all that later stages see, so a source may change or go away once it has been read.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rmo import config
from rmo.checkpoints.tokenizers import eos_of, load_tokenizer
from rmo.runtime import checksums
from rmo.runtime.files import Row, RunError, read_json, read_npz, write_json, write_npz, write_text
from rmo.worlds import dialogue, sources, templates, tokenization
from rmo.worlds.dialogue import Prompt
from rmo.worlds.judge import judge_of
from rmo.worlds.world import PURPOSES, Need, Prompts, Texts, World, register

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

ASKED = "asked.jsonl"  # prompts of demonstrations, for a judge
NAMES = {"read": "bon.prompts", "comparisons": "comparisons.prompts", "optimise": "ppo.prompts"}


def shown(c: config.Text, prompt: Prompt) -> Prompt:
    """What a policy is shown of a prompt, before any chat template.

    Raises:
      RunError: a dialogue, for which a template of one text has no place.
    """
    if isinstance(prompt, str):
        return c.template.replace("{prompt}", prompt)
    if c.template != "{prompt}":
        raise RunError(f"world.template is {c.template!r}, but prompts have several turns: it must be '{{prompt}}'")
    return prompt


def turns(prompt: Prompt) -> str:
    """What a dialogue is made of, for people."""
    return ", ".join(m.role for m in dialogue.as_messages(prompt))


def encode_prompt(
    c: config.Text, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, where: str, vocab: int
) -> list[int]:
    """The ids of a prompt as the policy meets it.

    Raises:
      TextError: it has several turns, and no chat template is to be used; or the template refuses them.
    """
    if not isinstance(prompt, str) and not c.chat:
        raise tokenization.TextError(
            f"{where} has several turns ({turns(prompt)}), which only a chat template can show: set world.chat, or "
            "leave such rows out"
        )
    return tokenization.encode(tokenizer, {"prompt": shown(c, prompt)}, where, vocab, "", c.chat, answer=False)


def named(source: str, prompt: Prompt) -> str:
    """Which prompt of a source, for messages."""
    return f"{source}: prompt {dialogue.words(prompt)[:40]!r}"


def encode_response(tokenizer: PreTrainedTokenizerBase, response: str, where: str, vocab: int) -> list[int]:
    """The ids of a response, EOS last."""
    ids = tokenization.known(tokenization.plain_ids(tokenizer, response, special=False), where, vocab)
    eos = eos_of(tokenizer)
    return ids if eos is None or ids[-1:] == [eos] else [*ids, eos]


def residue(prompt: Prompt) -> int:
    """What a prompt may be used for (`world.PURPOSES`) follows from its words alone, whatever seeds and sizes are."""
    return zlib.crc32(" ".join(dialogue.words(prompt).split()).casefold().encode()) % 8


def write(c: config.Text, tokenizer: PreTrainedTokenizerBase, vocab: int, out: Path) -> Row:
    """Read and tokenise the sources into `out`; returns what was read and what was left out.

    Raises:
      SourceError: a source cannot be read, or too many of its rows are malformed.
      RunError: the tokenizer has no EOS, or no prompt is short enough.
    """
    if eos_of(tokenizer) is None:
        raise RunError("the policy's tokenizer has no eos token: no response could ever end")
    found = sources.load_prompts(c.prompts, c.tolerance)
    kept: dict[bytes, tuple[Prompt, list[int]]] = {}
    long = 0
    for prompt in found.rows:
        ids = encode_prompt(c, tokenizer, prompt, named(c.prompts, prompt), vocab)
        if len(ids) > c.prompt:
            long += 1
        else:
            kept.setdefault(np.array(ids, np.int32).tobytes(), (prompt, ids))
    if not kept:
        raise RunError(f"{c.prompts}: all {long} prompts are longer than {c.prompt} tokens; raise world.prompt")
    texts = [prompt for prompt, _ in kept.values()]
    tokens, mask = tokenization.pad([ids for _, ids in kept.values()], c.prompt, left=True)
    write_npz(out / "prompts.npz", tokens=tokens, mask=mask, residue=np.array([residue(t) for t in texts]))
    lines = (json.dumps({"prompt": dialogue.spelled(t)}, ensure_ascii=False) + "\n" for t in texts)
    write_text(out / "prompts.jsonl", "".join(lines))
    info: Row = {
        "prompts": len(texts),
        "rows": found.summary(),
        "longer_than_prompt": long,
        "same_ids_as_another": len(found.rows) - long - len(texts),
        "dialogues": sum(not isinstance(t, str) for t in texts),
        "vocab": vocab,
        "eos": eos_of(tokenizer),
    }
    if c.demonstrations:
        info["demonstrations"] = write_demonstrations(c, tokenizer, vocab, out)
    write_json(out / "info.json", info)
    return info


def training_texts(c: config.Text) -> Iterator[str]:
    """Every text of the sources that a tokenizer may be trained on: prompts, and responses to them."""
    if c.demonstrations:
        for prompt, response in sources.load(c.demonstrations, sources.demonstration_of, c.tolerance).rows:
            yield dialogue.words(shown(c, prompt))
            yield response
    else:
        yield from (dialogue.words(shown(c, prompt)) for prompt in sources.load_prompts(c.prompts, c.tolerance).rows)


def write_comparisons(source: str, tolerance: float, out: Path) -> str:
    """Human comparisons of a source, kept as they were read: people.jsonl; returns what was read and left out."""
    found = sources.load_comparisons(source, tolerance)
    lines = (json.dumps({**row._asdict(), "prompt": dialogue.spelled(row.prompt)}) + "\n" for row in found.rows)
    write_text(out / "people.jsonl", "".join(lines))
    write_json(out / "people.json", {"comparisons": len(found.rows), "rows": found.summary()})
    return found.summary()


def read_comparisons(path: Path) -> list[sources.Comparison]:
    """What `write_comparisons` wrote, to the letter: nothing is recognised again."""
    rows = [json.loads(line) for line in checksums.content(path).decode().split("\n")[:-1]]
    return [sources.Comparison(dialogue.read_prompt(r["prompt"]), r["chosen"], r["rejected"]) for r in rows]


def check_dialogues(prompts: Iterable[Prompt], source: str, how: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse dialogues that a model cannot be shown.

    Args:
      how: as in `config.Model.reads`; ids are those of the policy's template.
      tokenizer: the model's.

    Raises:
      TextError: one has several turns and the model reads plain text, or its template refuses or drops a turn.
    """
    for prompt in prompts:
        if isinstance(prompt, str):
            continue
        if how == "text":
            raise tokenization.TextError(
                f"{named(source, prompt)} has several turns ({turns(prompt)}), which a model that reads text cannot be "
                'shown: give reads="chat"'
            )
        try:
            templates.render(tokenizer, prompt, answer=False)
        except templates.TemplateError as error:
            raise tokenization.TextError(f"{named(source, prompt)}: {error}") from error


def write_demonstrations(c: config.Text, tokenizer: PreTrainedTokenizerBase, vocab: int, out: Path) -> Row:
    """Prompt and response of every demonstration; responses are cut at R, where they then lack their EOS."""
    found = sources.load(c.demonstrations, sources.demonstration_of, c.tolerance)
    rows = []
    for prompt, response in dict.fromkeys(found.rows):
        where = named(c.demonstrations, prompt)
        ids = encode_prompt(c, tokenizer, prompt, where, vocab)
        if len(ids) <= c.prompt:
            rows.append((ids, encode_response(tokenizer, response, where, vocab), residue(prompt), prompt))
    if not rows:
        raise RunError(f"{c.demonstrations}: every prompt is longer than {c.prompt} tokens; raise world.prompt")
    asked, responses, residues, words = zip(*rows, strict=True)
    prompts, prompt_mask = tokenization.pad(list(asked), c.prompt, left=True)
    tokens, mask = tokenization.pad([ids[: c.response] for ids in responses], c.response, left=False)
    columns = {"prompts": prompts, "prompt_mask": prompt_mask, "tokens": tokens, "mask": mask}
    write_npz(out / "demonstrations.npz", **columns, residue=np.array(residues))
    if c.judge:
        write_text(out / ASKED, "".join(json.dumps(dialogue.spelled(p), ensure_ascii=False) + "\n" for p in words))
    return {
        "texts": len(rows),
        "rows": found.summary(),
        "longer_than_prompt": len(set(found.rows)) - len(rows),
        "cut_at_response": sum(len(ids) > c.response for ids in responses),
    }


@dataclass(frozen=True)
class TextWorld(World):
    """What stages ask of a world, from the files of the `prompts` stage."""

    c: config.Text
    directory: Path

    name = "text"
    reads_sources = True

    @classmethod
    def build(cls, c: config.WorldConfig, sources: Path | None) -> TextWorld:
        assert isinstance(c, config.Text)
        assert sources is not None
        return cls(c, sources)

    @classmethod
    def chosen(cls, c: config.WorldConfig) -> type[World]:
        from rmo.worlds.judged_text import JudgedTextWorld  # made of this one

        return JudgedTextWorld if isinstance(c, config.Text) and c.judge else cls

    @cached_property
    def info(self) -> Row:
        return read_json(self.directory / "info.json")

    @property
    def vocab(self) -> int:
        return self.info["vocab"]

    @property
    def eos(self) -> int:
        return self.info["eos"]

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:  # pyright: ignore[reportIncompatibleMethodOverride]
        return load_tokenizer(self.directory / "tokenizer")

    @cached_property
    def word_ids(self) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Ids that stand for text, least first: a tokenizer gives its vocabulary in another order in every process."""
        special = set(self.tokenizer.all_special_ids)
        every = sorted(set(self.tokenizer.get_vocab().values()))
        return np.array([i for i in every if i < self.vocab and i not in special])

    @cached_property
    def texts(self) -> dict[bytes, Prompt]:
        """A prompt's text by its ids: nothing is ever decoded to find it."""
        rows = read_npz(self.directory / "prompts.npz")
        lines = (
            checksums.content(self.directory / "prompts.jsonl").decode().split("\n")[:-1]
        )  # splitlines parts at U+2028 too
        return {
            t[m].tobytes(): dialogue.read_prompt(json.loads(line)["prompt"])
            for t, m, line in zip(rows["tokens"], rows["mask"], lines, strict=True)
        }

    def prompt_text(self, ids: np.ndarray) -> Prompt:
        return self.texts[ids.astype(np.int32).tobytes()]

    def shown(self, prompt: Prompt) -> Prompt:
        return shown(self.c, prompt)

    def prompts(self, rng: np.random.Generator, size: int, purpose: str) -> Prompts:
        """Distinct prompts for one purpose (see `residue`).

        Raises:
          ConfigError: the source has too few.
        """
        rows = read_npz(self.directory / "prompts.npz")
        fit = np.flatnonzero(np.isin(rows["residue"], PURPOSES[purpose]))
        if len(fit) < size:
            raise config.ConfigError(
                f"{NAMES[purpose]} is {size}, but of the {len(rows['mask'])} prompts of {self.c.prompts} only "
                f"{len(fit)} are for that purpose ({len(PURPOSES[purpose])} in 8): lower it, or give more prompts"
            )
        chosen = rng.permutation(fit)[:size]
        return Prompts(rows["tokens"][chosen], rows["mask"][chosen])

    def demonstrations(self, rng: np.random.Generator, size: int, held_out: bool = False) -> Texts:
        """Texts for SFT. Those to the prompts that policies are read on are held out: at most `size` of them.

        Raises:
          ConfigError: there are fewer.
        """
        rows = read_npz(self.directory / "demonstrations.npz")
        fit = np.flatnonzero(np.isin(rows["residue"], PURPOSES["read"]) == held_out)
        if held_out and not len(fit):
            raise config.ConfigError(
                f"no text of {self.c.demonstrations} is held out (one in 8 is, by its prompt): give more of them"
            )
        if not held_out and len(fit) < size:
            given = f"{self.c.demonstrations} has {len(fit)}"
            raise config.ConfigError(
                f"{size} texts are asked for (sft.texts, proxies.trunk.texts, a quarter of gold.texts), but {given} to "
                "prompts that may be trained on: lower it"
            )
        chosen = rng.permutation(fit)[:size]
        return Texts(*(rows[name][chosen] for name in ("prompts", "prompt_mask", "tokens", "mask")))


LEARNS = (
    "real text has no annotator to learn from: give world.judge, a function module:function from prompt and response "
    "to a number, or gold of kind checkpoint, people or random"
)


def check_bpe(e: config.Experiment, w: config.Text, need: Need) -> None:
    """A tokenizer that is trained on the run's own texts."""
    size, least = w.tokenizer.removeprefix(tokenization.BPE), tokenization.BYTES
    need(
        size.isdecimal() and int(size) > least,
        f"world.tokenizer is {w.tokenizer!r}: it must be bpe:SIZE, SIZE tokens, more than {least}",
    )
    need(not e.policy.checkpoint, f"world.tokenizer is {w.tokenizer!r}, but the policy's checkpoint has one of its own")
    need(
        not e.policy.vocab or e.policy.vocab >= int(size),
        f"policy.vocab is {e.policy.vocab}: world.tokenizer has up to {size} tokens; give that, or 0",
    )


def check(e: config.Experiment, w: config.Text, need: Need) -> None:
    """What real text asks for."""
    need(bool(w.prompts), "world.prompts is empty: give a JSONL or Parquet file, or another source of prompts")
    need("{prompt}" in w.template, f"world.template is {w.template!r}: it must hold {{prompt}}")
    need(w.tolerance < 1, f"world.tolerance is {w.tolerance}: it is a share, below 1")
    need(bool(w.tokenizer or e.policy.checkpoint), "world.tokenizer is empty, and the policy has no checkpoint")
    if w.tokenizer.startswith(tokenization.BPE):
        check_bpe(e, w, need)
    if w.judge:
        judge_of(w.judge)
    learns = e.gold.kind == "annotator"
    need(bool(w.judge) or not learns, f"gold.kind is {e.gold.kind!r}: {LEARNS}")
    need(bool(w.demonstrations) or not learns, "world.demonstrations is empty: gold of kind annotator learns from them")
    need(
        not e.sft.texts or bool(w.demonstrations),
        f"sft.texts is {e.sft.texts}, but world.demonstrations is empty: give a source, or sft.texts 0",
    )
    need(
        e.proxies.start == "random" or bool(w.demonstrations),
        f"proxies.start is {e.proxies.start!r}, but world.demonstrations is empty: give a source of texts",
    )
    named = [("policy", e.policy), ("gold.model", e.gold.model)]
    named += [(f"other_policies.{i}.model", o.model) for i, o in enumerate(e.other_policies)]
    named += [(f"proxies.sizes.{i}", m) for i, m in enumerate(e.proxies.sizes)]
    total = w.prompt + w.response
    for where, m in named:
        need(
            not m.checkpoint or bool(m.vocab and m.length),
            f"{where}.vocab and length are needed beside its checkpoint: `rmo.checkpoints.hf.shape_of` writes them",
        )
        need(m.reads == "ids" or bool(m.checkpoint), f"{where}.reads is {m.reads!r}: only a checkpoint has a tokenizer")
        need(
            m.reads != "ids" or not m.length or m.length >= total,
            f"{where}.length is {m.length}: prompt and response need {total} tokens",
        )
        need(
            m.reads != "ids" or not m.vocab or m.vocab >= e.policy.vocab,
            f"{where}.vocab is {m.vocab}: the policy has {e.policy.vocab} tokens, and it must know them all",
        )
    need(all(m.reads == "ids" for m in e.policies), "policy.reads must be ids: prompts are given in its own tokens")


register(config.Text, TextWorld, check)
