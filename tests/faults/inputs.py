"""The part `inputs`: configs, command lines and files that went wrong, through the commands as people call them.

Every case calls a command in this process, in a directory of its own and without a network. A run is stopped where its
first stage would be made. What is asked of each: an exit code as documented, one line where it fails, no traceback, no
hang, nothing half-written.
"""

import dataclasses
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rmo.cli import main
from rmo.cli.commands.run import RunOptions
from rmo.runtime import errors
from tests.faults.case import Case
from tests.faults.command import call, problem
from tests.helpers import fuzz_models, fuzz_people, gguf_files
from tests.helpers.checkpoints import write_checkpoint, write_tokenizer
from tests.helpers.damaged_logs import damaged_logs
from tests.helpers.smoke import ROOT, SMOKE

CASES = 1000

# Configs: the smoke config, with a value put somewhere, or a module that misbehaves.

PUT = """

_made = experiment


def _put(value, path, new):
    first, *rest = path
    if isinstance(value, tuple):
        return tuple(_put(x, rest, new) if rest and i == first else new if i == first else x for i, x in enumerate(value))
    inside = _put(getattr(value, first), rest, new) if rest else new
    return dataclasses.replace(value, **{first: inside})


def experiment():
    import dataclasses
    import math

    globals()["dataclasses"] = dataclasses
    return %s
"""
VALUES = [
    "True", "False", "None", "-1", "0", "1", "7", "2**31", "2**63", "2**70", "10**400", "0.5", "-0.0", "1e308", "1e-320", "math.nan", "math.inf",
    "-math.inf", "1j", "b'x'", "''", "' '", "'x'", "'x' * 5000", "'../up'", "'/abs'", "'a/b'", "'.'", "'..'", "'\\ud800'", "'\\x00'", "'\\u2028'",
    "'</script><b>'", "'\\u0645\\u062b'", "'é\\n\\n'", "()", "(1,)", "(0,)", "(-1,)", "(99,)", "(True,)", "('a',)", "(None,)", "((),)", "[]", "[1]", "{}", "set()",
    "lambda: 0", "object()", "int", "Model", "Model()", "Experiment()", "World()", "PPO()", "(Sweep(),)", "(Sweep(), Sweep())", "(Against(), Against())",
    "(Model(),)", "(Recipe(), Recipe(64))", "__import__('numpy').float32(3)", "__import__('numpy').int64(3)", "__import__('numpy').zeros(2)", "iter(())", "NotImplemented",
]  # fmt: skip
MODULES = {
    "raises": "raise ValueError('no')", "raises in two lines": "raise ValueError('no\\n\\nnever')", "raises nothing said": "raise ValueError",
    "cannot say why": "class E(Exception):\n    def __str__(self):\n        raise ValueError\nraise E", "exits": "import sys; sys.exit(3)", "exits well": "raise SystemExit",
    "stops": "raise GeneratorExit", "interrupts": "raise KeyboardInterrupt", "base": "class B(BaseException): pass\nraise B('x')", "prints": "print('hello')", "lacks": "import not_there_at_all",
    "lacks part": "from rmo.config import NotThere", "lacks relative": "from . import x", "deep": "def f(): return f()\nf()", "memory": "raise MemoryError", "asserts": "assert False",
    "number": "experiment = 3", "class": "from rmo.config import Experiment as experiment", "argument": "def experiment(x): pass", "nothing": "def experiment(): pass",
    "generator": "def experiment(): yield 1", "dict": "def experiment(): return {}", "list": "from rmo.config import Experiment\ndef experiment(): return [Experiment()]",
    "type": "from rmo.config import Experiment\ndef experiment(): return Experiment", "lambda": "experiment = lambda: 1 / 0", "syntax": "def experiment(:", "indent": "  x = 1\n y", "empty": "",
    "nested": "(" * 500, "null": "\x00", "name": "nam", "surrogate": "raise ValueError('\\ud800')", "attribute": "import rmo.config as c\nc.Experimant()", "field": "from rmo.config import PPO\nPPO(kl_maximum=1)",
    "cycle": "from rmo.config import Experiment\ndef experiment():\n    e = Experiment()\n    object.__setattr__(e, 'policy', e)\n    return e",
    "cycle of itself": "from rmo.config import Experiment\ndef experiment():\n    e = Experiment()\n    object.__setattr__(e, 'world', e)\n    return e",
    "cyclic tuple": "from rmo.config import Experiment\ndef experiment():\n    x = []\n    t = (x,)\n    x.append(t)\n    return Experiment(worlds=t)",
    "no field": "from rmo.config import Experiment\ndef experiment():\n    e = Experiment()\n    object.__delattr__(e, 'policy')\n    return e",
    "subclass": "from rmo.config import Experiment\nclass E(Experiment):\n    def __getattribute__(self, n): raise RuntimeError(n)\ndef experiment(): return E()",
}  # fmt: skip


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """The path to every field of a config, and of what its tuples hold."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield (*path, field.name)
            yield from places(getattr(value, field.name), (*path, field.name))
    elif isinstance(value, tuple):
        for i, entry in enumerate(value):
            yield (*path, i)
            yield from places(entry, (*path, i))


PLACES = list(places(SMOKE))
SOURCE = (ROOT / "configs" / "smoke.py").read_text()
IMPORTS = "\nfrom rmo.config import *\n"


def config_with(changes: list[tuple[tuple, str]]) -> str:
    """The smoke config with values (as Python writes them) put at some places."""
    made = "_made()"
    for path, value in changes:
        made = f"_put({made}, {path!r}, {value})"
    return SOURCE + IMPORTS + PUT % made


def config(rng: random.Random, here: Path, made: dict) -> tuple[str, str]:
    """A config file with one to three values replaced, or a module that misbehaves, or with other bytes."""
    kind = rng.random()
    if kind < 0.7:
        changes = [(rng.choice(PLACES), rng.choice(VALUES)) for _ in range(rng.choice((1, 1, 2, 3)))]
        what, text = "; ".join(f"{'.'.join(map(str, p))} = {v}" for p, v in changes), config_with(changes).encode()
    elif kind < 0.85:
        name = rng.choice(sorted(MODULES))
        what, text = f"module {name}", MODULES[name].encode("utf-8", "surrogatepass")
        if rng.random() < 0.3 and name != "empty":
            text = b"def experiment():\n" + b"".join(b"    " + line + b"\n" for line in text.split(b"\n"))
            what += ", in its function"
    else:
        path = here / "config.py"
        path.write_text(SOURCE)
        fuzz_people.mutate_bytes(rng, path)
        what, text = "other bytes", path.read_bytes()
    (here / "config.py").write_bytes(text)
    args = rng.choice((["list"], ["run"], ["run", "--jobs", "2"], ["list", "--jobs"], ["plan", "--topology", "v9:x"]))
    return what, checked(here, [args[0], "../config.py", *args[1:]])


def checked(here: Path, args: list[str]) -> str:
    """What is wrong with how a command ends in a fresh directory."""
    fresh = here / "fresh"
    fresh.mkdir()
    found = problem(call(args, fresh), fresh)
    return found and f"rmo {' '.join(args)[:200]}: {found}"


# Command lines.

OPTIONS = [name for name, _ in errors.options(RunOptions(SMOKE))]
WORDS = [
    "", " ", "-", "--", "---", "-h", "--help", "-x", "--x", "--out", "--seed", "--world.seed", "x", "-1", "0", "1e400", "nan", "2**3", "1,2", "None", "True", "a" * 5000, "é", "مث", "\u2028",
    "\ud800", "\n", "../config.py", "../there.csv", "../nothere", "../dir", "../unreadable", "/", ".", "..", "/dev/null", "/proc/self/mem", "https://x.invalid/y", "file:///etc", "s3://a",
    "x://", "://", "a@b", "~", "~nobody/x", "$HOME", "*", "\\", "{}", "--only", "sft", "=", "--kl", "--gold", "--jobs", "--runs", "--wandb", "--traceback", "--once", "--every", "--watch",
    "--level", "2", "--bootstrap", "0", "--rm-params", "--methods", "best_of_n", "--max-n", "--batch", "--member", "--dtype", "--topology", "v5e:8x8", "--suggest", "--draws", "--replace",
]  # fmt: skip


def command_line(rng: random.Random, here: Path, made: dict) -> tuple[str, str]:
    """Options that do not exist, wrong values, paths that are something else."""
    (here / "config.py").write_text(SOURCE)
    (here / "there.csv").write_text(
        "step,kl,gold\n" + "".join(f"{i},{i / 5},{(i / 5) ** 0.5 - i / 20}\n" for i in range(12))
    )
    (here / "dir").mkdir()
    (here / "unreadable").write_text("x")
    (here / "unreadable").chmod(0)
    command = rng.choice([*main.COMMANDS] * 3 + ["", "-h", "rnu", "x" * 2000, "é", "--"])
    args = [command]
    if command in ("run", "list", "plan") and rng.random() < 0.8:
        args.append("../config.py")
        for _ in range(rng.randint(0, 3)):
            args += [rng.choice(OPTIONS)] if rng.random() < 0.9 else []
            args += [rng.choice(WORDS)] if rng.random() < 0.9 else []
    else:
        args += [rng.choice(WORDS) for _ in range(rng.randint(0, 4))]
    if command == "plan":
        args += ["--topology", "v9:x"]
    if command in ("watch",):
        args += ["--once"]
    if command == "dashboard":
        args += ["--out", "view.json"]
    if "--watch" in args:
        args.remove("--watch")
    if "--traceback" in args:
        args.remove("--traceback")
    fresh = here / "fresh"
    fresh.mkdir()
    ended = call(args, fresh)
    urls = [word for word in args if "://" in word]
    if urls and ended.code == 2:  # they are asked for
        ended = ended._replace(asked=())
    return f"rmo {' '.join(map(repr, args))[:300]}", problem(ended, fresh)


# Files.


def log(rng: random.Random, here: Path, made: dict) -> tuple[str, str]:
    """A log that went wrong, through `rmo fit`."""
    name, content = list(damaged_logs(6, rng.randrange(2**31)))[rng.randrange(6)]
    (here / name).write_bytes(content)
    options = rng.choice(
        (
            [],
            ["--gold", "gold"],
            ["--kl", "kl", "--gold", "gold"],
            ["--kl", "kl", "--gold", "gold", "--proxy", "reward"],
        )
    )
    return name, checked(here, ["fit", f"../{name}", *options, "--out", "out", "--bootstrap", "2"])


def table(rng: random.Random, here: Path, made: dict) -> tuple[str, str]:
    """A curves.csv with other cells, columns, rows or bytes, through the commands that read one."""
    text = made["curves"]
    lines = text.splitlines()
    for _ in range(rng.randint(0, 3)):
        row = rng.randrange(len(lines))
        cells = lines[row].split(",")
        change = rng.randrange(5)
        if change == 0:
            cells[rng.randrange(len(cells))] = rng.choice(
                ("", "nan", "inf", "-1", "x", "1e400", "9" * 400, "\u0663", '"', "</td>", "=1+1", "1_0", "ppo", "0")
            )
        elif change == 1:
            del cells[rng.randrange(len(cells))]
        elif change == 2:
            cells.append("x")
        elif change == 3:
            lines.insert(row, lines[row])
        else:
            cells[0] = rng.choice(("bon", "../x", "<b>", "x" * 300))
        lines[row] = ",".join(cells)
    path = here / "run" / "curves.csv"
    path.parent.mkdir()
    path.write_text("\n".join(lines) + "\n")
    if rng.random() < 0.4:
        fuzz_people.mutate_bytes(rng, path)
    args = rng.choice((
        ["fit", "../run/curves.csv", "--out", "out", "--bootstrap", "2"], ["forecast", "../run", "--rm-params", "500", "--out", "out"],
        ["hedges", "../run", "--out", "out"],
    ))  # fmt: skip
    return "curves.csv", checked(here, args)


def gguf(rng: random.Random, here: Path, made: dict) -> tuple[str, str]:
    """A GGUF file with other fields or bytes, through `rmo convert`."""
    path = here / "model.gguf"
    path.write_bytes(made["gguf"])
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 6)):
        change = rng.randrange(4)
        at = rng.randrange(min(len(data), rng.choice((64, 2000, len(data)))))
        if change == 0:
            data[at] = rng.randrange(256)
        elif change == 1:
            data[at : at + 8] = rng.choice((0, 1, 2**31, 2**62, 2**64 - 1)).to_bytes(8, "little")
        elif change == 2:
            del data[at : at + rng.randrange(1, 64)]
        elif rng.random() < 0.2:
            del data[at:]
            data = data or bytearray(b"G")
    path.write_bytes(data)
    return "gguf", checked(here, ["convert", "../model.gguf", "out"])


def score_table(rng: random.Random, here: Path, made: dict) -> tuple[str, str]:
    """A table of scores with odd rows, through `rmo bon`."""
    rows = [{"prompt": f"q{q}", "proxy": rng.gauss(0, 1), "gold": rng.gauss(0, 1)} for q in range(3) for _ in range(8)]
    for _ in range(rng.randint(0, 3)):
        rows = fuzz_models.mutate_json(rng, rows)
        rows = rows if isinstance(rows, list) else [rows]
    (here / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if rng.random() < 0.3:
        fuzz_people.mutate_bytes(rng, here / "scores.jsonl")
    more = rng.choice(([], ["--rules"], ["--methods", "soft_best_of_n", "--temperatures", rng.choice(("0", "-1", "nan", "0.1", "1e400"))],
                       ["--max-n", rng.choice(("1", "2", "-3", "10000000000000"))], ["--points", rng.choice(("1", "0", "-1", "2"))]))  # fmt: skip
    return f"scores {' '.join(more)}", checked(
        here, ["bon", "../scores.jsonl", "--out", "out", "--bootstrap", "2", *more]
    )


def people(rng: random.Random, here: Path, made: dict) -> tuple[str, str]:
    """Rows, files and configs of people's data (helpers/fuzz_people.py)."""
    seed, number = rng.randrange(2**31), rng.randrange(2**31)
    found = fuzz_people.case(seed, number, made["policy"], made["tokenizer"])
    wrong = [f"{outcome}: {what}" for outcome, what in found if outcome not in ("value", "one line")]
    return f"fuzz_people seed {seed} case {number}", " ".join("; ".join(wrong).split())[:400]


def model(rng: random.Random, here: Path, made: dict) -> tuple[str, str]:
    """Checkpoints, tokenizers and rows to score (helpers/fuzz_models.py)."""
    seed, number = rng.randrange(2**31), rng.randrange(2**31)
    kind, did = fuzz_models.run_case(seed, number, made["models"])
    return f"fuzz_models seed {seed} case {number} ({kind})", "" if did in ("value", "refused") else " ".join(
        did.split()
    )[:400]


KINDS: dict[Callable[[random.Random, Path, dict], tuple[str, str]], int] = {
    config: 8, command_line: 8, log: 4, table: 2, gguf: 3, score_table: 2, people: 3, model: 3,
}  # fmt: skip


def thinned(text: str) -> str:
    """A table of curves with one RM seed and every sixth point of each."""
    head, *rows = text.splitlines()
    seed = head.split(",").index("seed")
    return "\n".join([head, *[row for row in rows if row.split(",")[seed] == "0"][::6]]) + "\n"


def originals(where: Path) -> dict:
    """What is mutated."""
    from rmo.checkpoints.tokenizers import load_tokenizer

    where.mkdir(parents=True, exist_ok=True)
    policy = write_tokenizer(write_checkpoint(where / "policy", "llama"), chat=True)
    curves = thinned((ROOT / "configs" / "results" / "one_gpu" / "curves.csv").read_text())
    plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0}, "tie_word_embeddings": True}
    small = write_checkpoint(where / "small", "llama", **plain)
    file = gguf_files.write_gguf(where / "small.gguf", small, write_tokenizer(where / "small_tokenizer"))
    return {
        "policy": policy,
        "tokenizer": load_tokenizer(policy),
        "models": fuzz_models.originals(where / "models"),
        "curves": curves,
        "gguf": file.read_bytes(),
    }


def campaign(cases: int, seed: int, where: Path) -> Iterator[Case]:
    """Cases of all kinds; which one a number is depends on the seed and the number alone."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    made = originals(where / "originals")
    for number in range(cases):
        yield one(seed, number, made)


def one(seed: int, number: int, made: dict) -> Case:
    rng = random.Random(f"inputs {seed} {number}")
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    with tempfile.TemporaryDirectory() as directory:
        what, found = kind(rng, Path(directory), made)
    return Case(f"inputs, seed {seed}, number {number}, {kind.__name__}: {what}", found)
