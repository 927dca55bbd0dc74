"""Mutated checkpoints, score tables and rows to score: each gives a value or one line, and nothing half-written.

`python -m tests.helpers.fuzz_models --cases 1000 --seed 0` runs them and says what each kind did; one case alone is
`--only NUMBER`. A case depends on the seed and its number alone.
"""

import argparse
import collections
import contextlib
import json
import math
import os
import random
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from safetensors.numpy import load_file, save_file

from rmo import config
from rmo.analysis.curve import CurveError
from rmo.checkpoints import ending, hf, saved_model, tokenizers
from rmo.logs import score_and_sample, score_tables
from rmo.runtime.files import RunError
from tests.helpers.checkpoints import write_checkpoint, write_tokenizer

SECONDS = 20  # of computing; a case that takes more hangs
EXPECTED = (RunError, config.ConfigError, CurveError)
ODD = [None, True, False, 0, 1, -1, 3, 0.5, 1e30, 10**12, math.nan, math.inf, "", "x", "</s>", "\u2028", [], {}, [0], [2, 1],
       ["x", None], {"a": 1}, [[1]], {"0": "x"}, "../x", "/", "a" * 300]  # fmt: skip


class Hang(Exception):
    """A case took too long."""


# Checkpoints to start from.


def originals(top: Path) -> dict[str, Path]:
    """A directory of each kind, small and sound."""
    made = {}
    for name in ("llama", "gpt2", "qwen2"):
        for kind in ("rm", "lm"):
            made[f"{name} {kind}"] = write_tokenizer(write_checkpoint(top / f"{name}_{kind}", name, kind), chat=True)
    rm = made["llama rm"]
    width = load_file(rm / "model.safetensors")["score.weight"].shape[1]
    made["value head"] = shutil.copytree(made["llama lm"], top / "value_head")
    head = {"v_head.summary.weight": np.ones((1, width), np.float32), "v_head.summary.bias": np.ones(1, np.float32)}
    save_file(head, made["value head"] / "value_head.safetensors")
    made["normalised"] = shutil.copytree(rm, top / "normalised")
    edit_json(made["normalised"] / "config.json", lambda c: c.update(mean=1.0, std=2.0, normalize_reward=True))
    made["shards"] = shutil.copytree(rm, top / "shards")
    tensors = list(load_file(rm / "model.safetensors").items())
    half, files = len(tensors) // 2, {}
    for k, part in enumerate((tensors[:half], tensors[half:]), 1):
        save_file(dict(part), made["shards"] / f"model-0000{k}-of-00002.safetensors")
        files |= {name: f"model-0000{k}-of-00002.safetensors" for name, _ in part}
    (made["shards"] / "model.safetensors").unlink()
    (made["shards"] / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    made["adapter"] = top / "adapter"
    made["adapter"].mkdir()
    values = {"base_model_name_or_path": str(rm), "peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": False,
              "alpha_pattern": {}, "rank_pattern": {}, "task_type": "SEQ_CLS"}  # fmt: skip
    (made["adapter"] / "adapter_config.json").write_text(json.dumps(values))
    q = "base_model.model.model.layers.0.self_attn.q_proj"
    lora = {
        f"{q}.lora_A.weight": np.ones((2, width), np.float32),
        f"{q}.lora_B.weight": np.ones((width, 2), np.float32),
    }
    save_file(lora, made["adapter"] / "adapter_model.safetensors")
    for directory in made.values():
        (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7], "pad_token_id": 0}))
    return made


# Mutations.


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """Every place in a JSON value."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            yield from places(value[key], (*path, key))


def mutate_json(rng: random.Random, value: object) -> object:
    """The value with one to three of its places changed, taken out or added to."""
    for _ in range(rng.randint(1, 3)):
        found = list(places(value))[:400]
        if not found:
            return rng.choice(ODD)
        *way, last = rng.choice(found)
        inside = value
        for key in way:
            inside = inside[key]
        kind = rng.random()
        if kind < 0.6:
            inside[last] = rng.choice(ODD)
        elif kind < 0.8:
            del inside[last]
        elif isinstance(inside, dict):
            inside[
                rng.choice(["x", "mean", "quantization_config", "auto_map", "eos_token_id", "id2label", f"{last}2"])
            ] = rng.choice(ODD)
    return value


def mutate_tensors(rng: random.Random, path: Path) -> None:
    """A safetensors file with one tensor changed, taken out, renamed or added."""
    tensors = load_file(path)
    name = rng.choice(sorted(tensors))
    kind = rng.randrange(8)
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        tensors[rng.choice(["x", f"module.{name}", f"{name}.absmax", "score.bias", "value_head.weight"])] = tensors.pop(
            name
        )
    elif kind == 2:
        tensors[name] = np.ascontiguousarray(tensors[name].T)
    elif kind == 3:
        tensors[name] = tensors[name].astype(rng.choice([np.int8, np.int64, np.float16, np.float64, np.bool_]))
    elif kind == 4:
        tensors[name] = np.zeros(rng.choice([(), (0,), (1,), (3, 3), (1, 32), (2, 32)]), np.float32)
    elif kind == 5:
        tensors[name] = tensors[name] * np.float32(rng.choice([math.nan, math.inf, 0.0, 1e30]))
    elif kind == 6:
        tensors[rng.choice(["head.weight", "v_head.summary.weight", "lora_A.weight", "score.weight"])] = np.ones(
            (1, 32), np.float32
        )
    else:
        tensors = {rng.choice(["module.", "base_model.model.", "a."]) + n: x for n, x in tensors.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def mutate_bytes(rng: random.Random, path: Path) -> None:
    """A file cut short, with other bytes in it, emptied, gone, or a directory."""
    content, kind = bytearray(path.read_bytes()), rng.randrange(6)
    if kind == 0:
        path.write_bytes(content[: rng.randrange(len(content) + 1)])
    elif kind == 1:
        for _ in range(rng.randint(1, 8)):
            if content:
                content[rng.randrange(min(len(content), rng.choice([16, 400, 10**9])))] = rng.randrange(256)
        path.write_bytes(content)
    elif kind == 2:
        path.write_bytes(
            rng.choice(
                [b"", b"{", b"[]", b"version https://git-lfs.github.com/spec/v1\n", b"\xff\xfe\x00", b"9" * 9000]
            )
        )
    elif kind == 3:
        path.unlink()
    elif kind == 4:
        path.unlink()
        path.mkdir()
    else:
        path.rename(
            path.with_name(
                rng.choice(
                    [
                        "x",
                        "pytorch_model.bin",
                        "model.safetensors.index.json",
                        "adapter_config.json",
                        "score.safetensors",
                    ]
                )
            )
        )


def checkpoint(rng: random.Random, made: dict[str, Path], here: Path) -> str:
    """A mutated checkpoint is loaded, with its tokenizer and the ids that texts end with."""
    kind = rng.choice(sorted(made))
    directory = shutil.copytree(made[kind], here / "model")
    for _ in range(rng.randint(1, 2)):
        files = sorted(path for path in directory.iterdir() if path.is_file())
        small = [path for path in files if path.suffix == ".json" and path.name != "tokenizer.json"]
        weights = [path for path in files if path.suffix == ".safetensors"]
        with contextlib.suppress(ValueError, KeyError, OSError):  # a mutation of what a mutation has spoilt
            if small and rng.random() < 0.5:
                path = rng.choice(small)
                path.write_text(json.dumps(mutate_json(rng, json.loads(path.read_text()))))
            elif weights and rng.random() < 0.5:
                mutate_tensors(rng, rng.choice(weights))
            elif files:
                mutate_bytes(rng, rng.choice(files))
    load = hf.load_language_model if kind.endswith("lm") else hf.load_reward_model
    load(directory)
    tokenizer = tokenizers.load_tokenizer(saved_model.tokenizer_place(directory))
    at = saved_model.places(directory)
    return f"{len(ending.response_ends(at, tokenizer)) > 0} {ending.pad_id(at, tokenizer) is not None}"


def table(rng: random.Random, made: dict[str, Path], here: Path) -> str:
    """A mutated table of scores is read, and a curve made of it."""
    prompts, draws = rng.randint(1, 4), rng.randint(1, 9)
    rows: list = [{"prompt": rng.choice([f"q{q}", q, [{"role": "user", "content": f"q{q}"}]]), "proxy": rng.gauss(0, 1), "gold": rng.gauss(0, 1)}
                  for q in range(prompts) for _ in range(draws)]  # fmt: skip
    form = rng.randrange(4)
    if form == 1:
        rows = [{**row, rng.choice(["draw", "seed", "rm", "rm_params", "x"]): i % 3} for i, row in enumerate(rows)]
    if form == 2:
        rows = [
            {
                "prompt": f"q{q}",
                "proxy": [rng.gauss(0, 1) for _ in range(draws)],
                "gold": [rng.gauss(0, 1) for _ in range(draws)],
            }
            for q in range(prompts)
        ]
    for _ in range(rng.randint(0, 2)):
        rows = rows[: rng.randint(0, len(rows))] if rng.random() < 0.3 else mutate_json(rng, rows)
        rows = rows if isinstance(rows, list) else [rows]
    path = here / rng.choice(["t.jsonl", "t.json", "t.parquet", "t.npz"])
    if path.suffix == ".npz":
        shape = rng.choice([(prompts, draws), (2, prompts, draws), (draws,), ()])
        arrays = {
            name: np.full(shape, rng.choice([0.0, 1.0, math.nan])) + np.arange(draws)
            for name in ("proxy", "gold", "seed")[: rng.randint(1, 3)]
        }
        np.savez(path, **arrays)
    elif path.suffix == ".parquet":
        with contextlib.suppress(Exception):  # not every value has a column's type
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row for row in rows if isinstance(row, dict)]), path)
    else:
        text = "\n".join(map(json.dumps, rows)) if path.suffix == ".jsonl" else json.dumps(rows)
        path.write_text(text[: rng.randint(0, len(text))] if rng.random() < 0.1 else text)
    found = score_tables.read(path)
    for one in found:
        curve = score_tables.curve(*one, max_n=score_tables.default_max_n(one.gold_QN.shape[1]))
        assert np.isfinite(curve.gold).all(), "a curve that is no number"
    return f"{len(found)} tables"


USER, ANSWER = {"role": "user", "content": "the cat?"}, {"role": "assistant", "content": "sat."}
ROWS = [
    {"prompt": "the cat", "response": "sat"}, {"messages": [USER, ANSWER]}, {"messages": [USER], "response": "sat"},
    {"text": "the mat"}, {"prompt": "a", "chosen": "b", "rejected": "c"}, {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]},
    {"prompt": "a", "answers": ["b", "c"], "gold_scores": [1, 2]}, {"prompt": [USER], "completion": [ANSWER]},
    {"prompt": "a", "response": "b", "tokens": [4, 2], "vocabulary": "v", "ended": True, "logp": -1.0, "draw": 0},
]  # fmt: skip


def scored(rng: random.Random, made: dict[str, Path], here: Path) -> str:
    """Mutated rows are scored, or sampled from, through a sound model."""
    rows = [json.loads(json.dumps(rng.choice(ROWS))) for _ in range(rng.randint(1, 3))]
    for i in range(len(rows)):
        if rng.random() < 0.6:
            rows[i] = mutate_json(rng, rows[i])
    path, out = here / "rows.jsonl", here / "out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        if rng.random() < 0.8:
            options = {
                "chat": rng.random() < 0.5,
                "at": rng.choice(["last", "before-pad"]),
                "skip_long": rng.random() < 0.5,
            }
            score_and_sample.score(str(made["llama rm"]), path, out, 4, **options)
        else:
            score_and_sample.sample(str(made["llama lm"]), path, out, 4, rng.random() < 0.5, 1, 4, 1.0, 0)
    except EXPECTED:
        assert not list(here.glob("*out*")), "half-written"
        raise
    made_rows = [json.loads(line) for line in out.read_text().split("\n")[:-1]]
    assert not list(here.glob(".*")), "a part is left"
    assert made_rows, "nothing written"
    return f"{len(made_rows)} rows"


KINDS = {"checkpoint": checkpoint, "table": table, "scored": scored}


def run_case(seed: int, number: int, made: dict[str, Path]) -> tuple[str, str]:
    """(kind, what it did: `value`, `refused` or what is wrong with it)."""
    rng = random.Random(f"{seed} {number}")
    kind = rng.choices(list(KINDS), [6, 2, 2])[0]

    def hang(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGVTALRM, hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with tempfile.TemporaryDirectory() as here:
            KINDS[kind](rng, made, Path(here))
        return kind, "value"
    except EXPECTED as error:
        line = str(error)
        return kind, "refused" if line.strip() and "\n" not in line and len(
            line
        ) < 2000 else f"not one line: {line[:200]!r}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return kind, f"case {number}: {type(error).__name__}: {str(error)[:200]}\n{traceback.format_exc()}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def run(cases: range | list[int], seed: int) -> tuple[collections.Counter, list[str]]:
    """(how often each kind did what, what is wrong)."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    counts, wrong = collections.Counter(), []
    with tempfile.TemporaryDirectory() as top:
        made = originals(Path(top))
        for number in cases:
            kind, did = run_case(seed, number, made)
            sound = did in ("value", "refused")
            counts[kind, did if sound else "wrong"] += 1
            if not sound:
                wrong.append(did)
    return counts, wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    given = parser.parse_args()
    found, bad = run(range(given.cases) if given.only is None else [given.only], given.seed)
    for line in bad:
        print(line)
    for (kind, did), count in sorted(found.items()):
        print(f"{kind}: {count} {did}")
    raise SystemExit(bool(bad))
