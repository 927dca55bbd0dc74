"""Damage: every file that a run leaves is spoilt in every way, and whatever reads it next must notice, or not mind.

Each case starts from a copy of one undisturbed run, spoils one file of it, and calls what reads that file as a command
does. It must come to the same as with the undisturbed run, or refuse in one line that names the file or its stage.
"""

import contextlib
import io
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from rmo.artifacts.run_files import curves_at
from rmo.artifacts.stages import Comparisons
from rmo.checkpoints import saved_model
from rmo.cli.main import EXPECTED
from rmo.config import SFT, Experiment, Optimizer, Recipe
from rmo.experiment import graph, runner
from rmo.experiment.pool import Scored
from rmo.experiment.run import Run
from rmo.experiment.stages.report import publish
from rmo.report import run_report
from rmo.report.figures import style
from rmo.runtime import checksums, sharding
from rmo.tracking import status, watch
from rmo.worlds import comparisons
from tests.faults.case import Case
from tests.helpers.smoke import SMOKE

CASES = 600
BEFORE_REPORT = ("sft", "gold", "samples", "comparisons", "proxies", "scores", "bon", "tilt", "fits")
RESULTS = ("curves.csv", "coefficients.json", "claims.json")


def experiment(seed: int = 0) -> Experiment:
    """The smoke experiment cut down to one RM, selected by: every kind of file, in a few seconds."""
    sweep = replace(SMOKE.proxies.sweeps[0], recipes=(Recipe(256),))
    return replace(
        SMOKE,
        name="damage",
        seed=seed,
        sft=SFT(texts=128, epochs=1, batch=64, optimizer=Optimizer(lr=1e-2)),
        gold=replace(SMOKE.gold, texts=128),
        comparisons=replace(SMOKE.comparisons, prompts=100),
        proxies=replace(SMOKE.proxies, sizes=SMOKE.proxies.sizes[:1], sweeps=(sweep,)),
        bon=replace(SMOKE.bon, prompts=4, draws=32, max_n=8, points=5, chunk=32),
        ppo=replace(SMOKE.ppo, against=()),
        gold_as_proxy=replace(SMOKE.gold_as_proxy, ppo_seeds=0),
        fits=replace(SMOKE.fits, bootstrap=5),
    )


def run_in(root: Path, seed: int = 0) -> Run:
    return graph.open_run(experiment(seed), root, sharding.make_mesh(1))


def undisturbed(root: Path, seed: int = 0, only: tuple[str, ...] = ()) -> None:
    """A whole run, or some of its stages."""
    run = run_in(root, seed)
    root.mkdir(parents=True, exist_ok=True)
    with quiet(), no_pictures():
        runner.execute(run, only)
        publish(run)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def no_pictures() -> Iterator[None]:
    """Figures are drawn, but not as SVG, which would take most of the time and reads no file."""
    svg, style.svg = style.svg, lambda _: "<svg/>"
    try:
        yield
    finally:
        style.svg = svg


# What reads a run. Each returns what it made of it, to be compared.


def leaves(params: object) -> list[bytes]:
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(params)]


def going_on(root: Path) -> object:
    """`rmo run` where fits and report are still to be made."""
    run = run_in(root)
    for name in ("fits", "report"):
        shutil.rmtree(run.path(name), ignore_errors=True)
    runner.execute(run, ("fits",))
    publish(run)
    return [(root / name).read_bytes() for name in RESULTS]


def nothing_left(root: Path) -> object:
    """`rmo run` where everything is done: what people open is published again."""
    run = run_in(root)
    runner.execute(run)
    publish(run)
    return [(root / name).read_bytes() for name in RESULTS]


def parameters(stage: str, root: Path) -> object:
    """What the stages after this one load of it."""
    run = run_in(root)
    e, size = run.experiment, run.experiment.proxies.sizes[0]
    if stage == "sft":
        return leaves(run.load(stage, run.lm()))
    if stage == "gold":
        return leaves(run.load(stage, run.gold_rm()))
    scored = Scored(run, 0, e.proxies.sweeps[0])
    return leaves(run.load(scored.proxies_stage, run.rm(size), len(scored.proxies.rows())))


def pool(root: Path) -> object:
    """What best-of-n and PPO read of the pool."""
    run = run_in(root)
    found = Scored(run, 0, run.experiment.proxies.sweeps[0])
    prompts = found.samples.prompts
    return [*leaves(prompts), *leaves([found.samples.draws(q) for q in range(run.experiment.bon.prompts)])]


def read_comparisons(root: Path) -> object:
    """What RMs are trained on."""
    dataset = Comparisons(run_in(root).path("comparisons")).dataset
    return leaves([comparisons.read_comparisons(dataset, split) for split in ("train", "validation")])


def draw(root: Path) -> object:
    """`rmo sample RUN/sft`."""
    module, params, tokenizer = saved_model.load_language_model(run_in(root).path("sft"))
    return module, leaves(params), tokenizer.backend_tokenizer.to_str(), str(tokenizer.special_tokens_map)


def score(root: Path) -> object:
    """`rmo score RUN/gold`."""
    module, params, tokenizer = saved_model.load_reward_model(run_in(root).path("gold"))
    return module, leaves(params), tokenizer.backend_tokenizer.to_str(), str(tokenizer.special_tokens_map)


def report(root: Path) -> object:
    """`rmo report RUN`."""
    run_report.write(root)
    return (root / "report.html").read_bytes(), (root / "results.md").read_bytes()


def list_stages(root: Path) -> object:
    """`rmo list`."""
    run = run_in(root)
    found = status.look(root, {name: stage.path for name, stage in run.stages.items()})
    for row in found:
        row["age"] = None
    return status.lines(found)


def watch_once(root: Path) -> object:
    """`rmo watch --once`, without the picture, whose size is the terminal's."""
    lines = watch.view(root, (), 100, 30, False)[0].replace(str(root), "RUN").splitlines()
    return [line for line in lines if not re.match(r"[\s\d.]*([┤│┌└]|$)", line) and not line.startswith("    ")]


def curves(root: Path) -> object:
    """`rmo forecast RUN`, `rmo hedges RUN`."""
    return [(str(c.id), c.kl.tolist(), c.gold.tolist(), c.proxy.tolist()) for c in curves_at(root)]


READERS: dict[str, Callable[[Path], object]] = {
    "run, fits to be made": going_on,
    "run, all done": nothing_left,
    "loading sft": partial(parameters, "sft"),
    "loading gold": partial(parameters, "gold"),
    "loading proxies": partial(parameters, "proxies"),
    "loading the pool": pool,
    "loading comparisons": read_comparisons,
    "sample": draw,
    "score": score,
    "report": report,
    "list": list_stages,
    "watch": watch_once,
    "forecast": curves,
}
# What is read by libraries that are not written in Python, or is only looked for, which tracing does not see.
UNSEEN = {
    "sft-*/params/*": ("loading sft", "sample"),
    "gold-*/params/*": ("loading gold", "score"),
    "proxies/*/params/*": ("loading proxies",),
    "comparisons-*/dataset/*": ("loading comparisons",),
    "sft-*/tokenizer/*": ("sample", "score"),
    "*DONE": ("list", "run, all done", "run, fits to be made"),
}


# Ways to spoil a file.


def truncated(file: Path, _: Path | None, rng: random.Random) -> str:
    content = file.read_bytes()
    return put(file, content[: (kept := rng.randrange(len(content)))]) and f"to {kept} bytes"


def flipped(file: Path, _: Path | None, rng: random.Random) -> str:
    content = bytearray(file.read_bytes())
    at, bit = rng.randrange(len(content)), rng.randrange(8)
    content[at] ^= 1 << bit
    return put(file, bytes(content)) and f"at byte {at}, bit {bit}"


def emptied(file: Path, _: Path | None, rng: random.Random) -> str:
    return put(file, b"")


def deleted(file: Path, _: Path | None, rng: random.Random) -> str:
    file.unlink()
    return " "


def another_runs(file: Path, other: Path | None, rng: random.Random) -> str:
    """The same file of a run with another seed."""
    return put(file, other.read_bytes()) if other and other.read_bytes() != file.read_bytes() else ""


def no_file(file: Path, _: Path | None, rng: random.Random) -> str:
    """A directory is in its place: it cannot be read, whoever asks."""
    file.unlink()
    file.mkdir()
    return " "


def put(file: Path, content: bytes) -> str:
    """Files of a copy are links to those of the undisturbed run: they are replaced, never written into."""
    file.unlink()
    file.write_bytes(content)
    return " "


KINDS = {
    "truncated": truncated,
    "flipped": flipped,
    "emptied": emptied,
    "deleted": deleted,
    "another run's": another_runs,
    "a directory": no_file,
}


# Cases.


class Fault(NamedTuple):
    file: str  # relative to the run
    kind: str
    reader: str


_opened: list[set[str]] = []  # where paths that are opened go, while it is asked for


def note_opened(event: str, args: tuple) -> None:
    if _opened and event == "open" and isinstance(args[0], str | os.PathLike):
        _opened[-1].add(os.fspath(args[0]))


class Undisturbed(NamedTuple):
    """A run that nothing is wrong with."""

    readers: dict[str, set[str]]  # by file, relative to the run: who reads it
    made: dict[str, object]  # by reader: what it makes of the run
    seconds: dict[str, float]  # by reader


def look_on(base: Path, where: Path, readers: Iterable[str]) -> Undisturbed:
    """Have every reader read a run, and note which files it opens."""
    files = files_of(base)
    found: dict[str, set[str]] = {file: set() for file in files}
    made, seconds = {}, {}
    sys.addaudithook(note_opened)
    for name in readers:
        copy = linked(base, where / "traced")
        _opened.append(set())
        began = time.process_time()
        try:
            with quiet(), no_pictures():
                made[name] = READERS[name](copy)
        finally:
            opened = _opened.pop()
        seconds[name] = time.process_time() - began
        for file in files:
            if str(copy / file) in opened:
                found[file].add(name)
    for pattern, names in UNSEEN.items():
        for file in files:
            if fnmatch(file, pattern):
                found[file].update(set(names) & set(made))
    return Undisturbed(found, made, seconds)


def files_of(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def linked(base: Path, to: Path) -> Path:
    """A copy of a run whose files are links: whoever writes replaces them."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(base, to, copy_function=os.link)
    return to


def same_file(file: str, mine: Run, theirs: Run) -> Path | None:
    """The same file of another run, whose stages have other digests."""
    for name, stage in mine.stages.items():
        if file.startswith(stage.path + "/"):
            folder = theirs.path(name)
            rest = Path(file).relative_to(stage.path)
            exact = folder / rest
            if exact.exists():
                return exact
            alike = sorted((folder / rest.parent).glob("*")) if (folder / rest.parent).exists() else []
            return next((path for path in alike if path.is_file()), None)
    return theirs.root / file if (theirs.root / file).exists() else None


def problem_of(root: Path, file: str, reader: str, wanted: object) -> str:
    """What is wrong with how a reader took a spoilt file; empty where nothing is."""
    for kept in (checksums._known, checksums._whole, watch._finished):
        kept.clear()  # as the next command begins
    try:
        with quiet(), no_pictures():
            found = READERS[reader](root)
    except (*EXPECTED, OSError) as error:
        return unclear(str(error), root, file)
    except Exception as error:
        return f"a traceback: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
    if found == wanted or (reader in ("list", "watch") and "stopped" in str(found)):  # not taken for done
        return ""
    return "used without a word: another result"


def unclear(line: str, root: Path, file: str) -> str:
    """What is wrong with a message: it must be one line, name the file or what it is in, and say what to do."""
    places = [file, *map(str, Path(file).parents)][:-1]
    if not any(str(root / place) in line for place in places):
        return f"refused without naming the file: {line[:200]}"
    if "\n" in line:
        return f"refused in several lines: {line[:200]!r}"
    if f"remove {root} and" in line or f"remove {root};" in line:
        return f"advises to remove the whole run: {line[:200]}"
    return "" if "run again" in line or "remove" in line else f"refused without advice: {line[:200]}"


def try_fault(fault: Fault, base: Path, other: Path, where: Path, wanted: object, rng: random.Random) -> Case | None:
    """One case; None where there is nothing to spoil so."""
    root = linked(base, where / "copy")
    if fault.kind == "another run's stage":
        how = swap_stage(fault.file, root, other)
    else:
        theirs = same_file(fault.file, run_in(base), run_in(other, 1))
        if not (root / fault.file).stat().st_size and fault.kind in ("truncated", "flipped", "emptied"):
            return None
        how = KINDS[fault.kind](root / fault.file, theirs, rng)
    if not how:
        return None
    problem = problem_of(root, fault.file, fault.reader, wanted)
    return Case(f"{fault.file} {fault.kind} {how.strip()} [{fault.reader}]", problem)


def swap_stage(name: str, root: Path, other: Path) -> str:
    """A whole stage of the other run under the name of ours. `name`: its directory, relative to the run."""
    mine, theirs = run_in(root), run_in(other, 1)
    stage = next(stage for stage, made in mine.stages.items() if made.path == name)
    if not theirs.path(stage).exists():
        return ""
    shutil.rmtree(root / name)
    shutil.copytree(theirs.path(stage), root / name)
    return f"(of {stage})"


def faults(found: dict[str, set[str]], base: Path) -> list[Fault]:
    """Every file, in every way, before each of its readers; and whole stages."""
    out = [Fault(file, kind, reader) for file, names in found.items() for kind in KINDS for reader in sorted(names)]
    for stage in run_in(base).stages.values():
        readers = {reader for file, names in found.items() if file.startswith(stage.path) for reader in names}
        out += [Fault(stage.path, "another run's stage", reader) for reader in sorted(readers)]
    return out


def kind_of_file(file: str) -> str:
    """A file's kind, so that a sample has all: what it is called, hashes and numbers left out."""
    path = Path(file)
    inside = next((part for part in ("params", "dataset", "tokenizer", "figures") if part in path.parts), "")
    return f"{inside}/{path.suffix or path.name}" if len(path.name) < 30 else f"{inside}/data"


def sampled(every: list[Fault], cases: int, seconds: dict[str, float], rng: random.Random) -> list[Fault]:
    """As many as asked for, kinds of files and of damage by turns, so that all are covered; readers that take longer
    less often."""
    by_kind: dict[tuple[str, str], list[Fault]] = {}
    for fault in sorted(every, key=lambda fault: -rng.expovariate(1) * (0.02 + seconds[fault.reader])):
        by_kind.setdefault((kind_of_file(fault.file), fault.kind), []).append(fault)
    out: list[Fault] = []
    while len(out) < cases and any(by_kind.values()):
        for group in by_kind.values():
            if group and len(out) < cases:
                out.append(group.pop())
    return out


def campaign(cases: int, seed: int, where: Path) -> Iterator[Case]:
    """So many damaged files, of all kinds."""
    base, other = where / "undisturbed", where / "other"
    undisturbed(base)
    undisturbed(other, 1)
    yield from damaged(cases, seed, where, READERS)


def sample(cases: int, seed: int, where: Path) -> Iterator[Case]:
    """The same without the readers that take long, and with one stage only to be another run's."""
    undisturbed(where / "undisturbed", 0, BEFORE_REPORT)
    undisturbed(where / "other", 1, ("sft",))
    slow = ("run, fits to be made", "run, all done", "report")
    yield from damaged(cases, seed, where, [name for name in READERS if name not in slow])


def damaged(cases: int, seed: int, where: Path, readers: Iterable[str]) -> Iterator[Case]:
    """Cases of an undisturbed run and another one in `where`."""
    rng = random.Random(seed)
    base, other = where / "undisturbed", where / "other"
    known = look_on(base, where, readers)
    for fault in sampled(faults(known.readers, base), cases, known.seconds, rng):
        case = try_fault(fault, base, other, where, known.made[fault.reader], rng)
        if case:
            yield case
