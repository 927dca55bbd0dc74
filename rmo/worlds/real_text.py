"""Real text in the synthetic world's place: prompts and demonstrations, read and tokenised once for a whole run.

What the `prompts` stage writes is all that later stages see, so a source may change or go away once it has been read.
"""

import json
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rmo import config
from rmo.checkpoints.tokenizers import load_tokenizer
from rmo.runtime.files import RunError, read_json, read_npz, write_json, write_npz, write_text
from rmo.worlds import sources, tokenization
from rmo.worlds.synthetic import PURPOSES, Prompts, Texts

NAMES = {"read": "bon.prompts", "comparisons": "comparisons.prompts", "ppo": "ppo.prompts"}


def shown(c: config.Text, prompt: str) -> str:
    """What a policy is shown of a prompt, before any chat template."""
    return c.template.replace("{prompt}", prompt)


def encode_prompt(c: config.Text, tokenizer: Any, prompt: str, where: str, vocab: int) -> list[int]:
    """The ids of a prompt as the policy meets it."""
    return tokenization.encode(tokenizer, {"prompt": shown(c, prompt)}, where, vocab, "", c.chat, answer=False)


def encode_response(tokenizer: Any, response: str, where: str, vocab: int) -> list[int]:
    """The ids of a response, EOS last."""
    ids = tokenization.known(list(tokenizer(response, add_special_tokens=False)["input_ids"]), where, vocab)
    return ids if ids[-1:] == [tokenizer.eos_token_id] else [*ids, tokenizer.eos_token_id]


def residue(prompt: str) -> int:
    """What a prompt may be used for (`world.PURPOSES`) follows from its words alone, whatever seeds and sizes are."""
    return zlib.crc32(" ".join(prompt.split()).casefold().encode()) % 8


def write(c: config.Text, tokenizer: Any, vocab: int, out: Path) -> dict[str, Any]:
    """Read and tokenise the sources into `out`; returns what was read and what was left out.

    Raises:
      SourceError: a source cannot be read, or too many of its rows are malformed.
      RunError: the tokenizer has no EOS, or no prompt is short enough.
    """
    if tokenizer.eos_token_id is None:
        raise RunError("the policy's tokenizer has no eos token: no response could ever end")
    found = sources.load_prompts(c.prompts, c.tolerance)
    kept: dict[bytes, tuple[str, list[int]]] = {}
    long = 0
    for prompt in found.rows:
        ids = encode_prompt(c, tokenizer, prompt, f"{c.prompts}: prompt {prompt[:40]!r}", vocab)
        if len(ids) > c.prompt:
            long += 1
        else:
            kept.setdefault(np.array(ids, np.int32).tobytes(), (prompt, ids))
    if not kept:
        raise RunError(f"{c.prompts}: all {long} prompts are longer than {c.prompt} tokens; raise world.prompt")
    texts = [prompt for prompt, _ in kept.values()]
    tokens, mask = tokenization.pad([ids for _, ids in kept.values()], c.prompt, left=True)
    write_npz(out / "prompts.npz", tokens=tokens, mask=mask, residue=np.array([residue(t) for t in texts]))
    write_text(out / "prompts.jsonl", "".join(json.dumps({"prompt": t}, ensure_ascii=False) + "\n" for t in texts))
    info: dict[str, Any] = {
        "prompts": len(texts), "rows": found.summary(), "longer_than_prompt": long,
        "same_ids_as_another": len(found.rows) - long - len(texts), "vocab": vocab, "eos": tokenizer.eos_token_id,
    }  # fmt: skip
    if c.demonstrations:
        info["demonstrations"] = write_demonstrations(c, tokenizer, vocab, out)
    write_json(out / "info.json", info)
    return info


def write_comparisons(source: str, tolerance: float, out: Path) -> None:
    """Human comparisons of a source, kept as they were read: people.jsonl, and what was left out."""
    found = sources.load_comparisons(source, tolerance)
    write_text(out / "people.jsonl", "".join(json.dumps(row._asdict()) + "\n" for row in found.rows))
    write_json(out / "people.json", {"comparisons": len(found.rows), "rows": found.summary()})


def write_demonstrations(c: config.Text, tokenizer: Any, vocab: int, out: Path) -> dict[str, Any]:
    """Prompt and response of every demonstration; responses are cut at R, where they then lack their EOS."""
    found = sources.load(c.demonstrations, sources.demonstration_of, c.tolerance)
    rows = []
    for prompt, response in dict.fromkeys(found.rows):
        where = f"{c.demonstrations}: prompt {prompt[:40]!r}"
        ids = encode_prompt(c, tokenizer, prompt, where, vocab)
        if len(ids) <= c.prompt:
            rows.append((ids, encode_response(tokenizer, response, where, vocab), residue(prompt)))
    if not rows:
        raise RunError(f"{c.demonstrations}: every prompt is longer than {c.prompt} tokens; raise world.prompt")
    prompts, prompt_mask = tokenization.pad([p for p, _, _ in rows], c.prompt, left=True)
    tokens, mask = tokenization.pad([r[: c.response] for _, r, _ in rows], c.response, left=False)
    write_npz(
        out / "demonstrations.npz", prompts=prompts, prompt_mask=prompt_mask, tokens=tokens, mask=mask,
        residue=np.array([k for _, _, k in rows]),
    )  # fmt: skip
    cut = sum(len(r) > c.response for _, r, _ in rows)
    return {"texts": len(rows), "rows": found.summary(), "longer_than_prompt": len(set(found.rows)) - len(rows),
            "cut_at_response": cut}  # fmt: skip


@dataclass(frozen=True)
class TextWorld:
    """What stages ask of a world, from the files of the `prompts` stage."""

    c: config.Text
    directory: Path

    @cached_property
    def info(self) -> dict[str, Any]:
        return read_json(self.directory / "info.json")

    @property
    def vocab(self) -> int:
        return self.info["vocab"]

    @property
    def eos(self) -> int:
        return self.info["eos"]

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.directory / "tokenizer")

    @cached_property
    def word_ids(self) -> np.ndarray:
        """Ids that stand for text."""
        special = set(self.tokenizer.all_special_ids)
        return np.array([i for i in self.tokenizer.get_vocab().values() if i < self.vocab and i not in special])

    @cached_property
    def texts(self) -> dict[bytes, str]:
        """A prompt's text by its ids: nothing is ever decoded to find it."""
        rows = read_npz(self.directory / "prompts.npz")
        lines = (self.directory / "prompts.jsonl").read_text().split("\n")[:-1]  # splitlines parts at U+2028 too
        return {
            t[m].tobytes(): json.loads(line)["prompt"]
            for t, m, line in zip(rows["tokens"], rows["mask"], lines, strict=True)
        }

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
            raise config.ConfigError(f"sft.texts is {size}, but {given} to prompts that may be trained on: lower it")
        chosen = rng.permutation(fit)[:size]
        return Texts(*(rows[name][chosen] for name in ("prompts", "prompt_mask", "tokens", "mask")))
