"""A finished run, its stages made again one at a time, and what they leave compared with it, byte for byte."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.faults.disk import Killed
from tests.helpers.flags import FAST

ROOT = Path(__file__).parents[2]
CONFIG, NAME = ROOT / "tests" / "faults" / "smallest.py", "smallest"
TIMES = {"cost.json", "speed.jsonl", "stages.json", "report.html"}  # say how long something took
LISTS = {"DONE", "PUBLISHED"}  # may list checksums, those of TIMES too: their first line counts
TOP = ("curves.csv", "coefficients.json", "claims.json")  # what a run is made for
ADVICE = r"same command|again|remove|free|give|wait|install"  # what to do


def prepare(where: Path) -> None:
    """Have programs compiled fast, and each once for all processes of a campaign; before JAX is imported."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(where / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", FAST)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextlib.contextmanager
def often() -> Iterator[None]:
    """Inside, the state of a training is saved at every second step: these end before the usual ones."""
    from rmo.methods.ppo import loop as ppo
    from rmo.training import loop

    functions = (loop.train, ppo.train_ppo)
    before = [function.__defaults__ for function in functions]
    for function, values in zip(functions, before, strict=True):
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        place = names.index("every") - len(names)
        changed = list(values or ())
        changed[place] = 2
        function.__defaults__ = tuple(changed)
    try:
        yield
    finally:
        for function, values in zip(functions, before, strict=True):
            function.__defaults__ = values


class Ended(NamedTuple):
    """How a command ended: its exit code, or None where it was killed; what it said on stderr; a traceback, if any."""

    code: int | None
    said: str
    trace: str

    @property
    def line(self) -> str:
        """What it said last."""
        return (self.said.strip().splitlines() or [""])[-1]

    def refusal(self, where: Path | str) -> str:
        """What is wrong with how it refused; empty if it was one line that names a file and says what to do."""
        if self.trace:
            return f"a traceback: {self.trace.strip().splitlines()[-1]}"
        if self.code not in (2, 75, 76, 77):
            return f"exit code {self.code}: {self.line}"
        if not self.line.startswith("rmo: ") or self.said.count("\nrmo: ") + self.said.startswith("rmo: ") != 1:
            return f"not one line: {self.said[-300:]!r}"
        if str(where) not in self.line:
            return f"no file is named: {self.line}"
        return "" if re.search(ADVICE, self.line) else f"not said what to do: {self.line}"


def command(runs: Path | str, *more: str, disk: contextlib.AbstractContextManager | None = None) -> Ended:
    """`rmo run` in this process, so that compiled programs are kept."""
    from rmo.cli.main import main
    from rmo.runtime import files, hosts

    files.local.cache_clear()
    hosts._Stop.asked = False
    before, term, said, code, trace = sys.argv, signal.getsignal(signal.SIGTERM), io.StringIO(), 0, ""
    sys.argv = ["rmo", "run", str(CONFIG), "--runs", str(runs), *more]
    try:
        with (
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(io.StringIO()),
            disk or contextlib.nullcontext(),
        ):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except Killed:
        code = None
    except BaseException:
        code, trace = 1, traceback.format_exc()
    finally:
        sys.argv = before
        signal.signal(signal.SIGTERM, term)  # which `rmo run` takes for its own
    if disk is not None and getattr(disk, "dead", False):
        return Ended(None, "", "")  # however it went on: it was dead by then
    return Ended(code, said.getvalue(), trace)


@dataclass
class Finished:
    """An undisturbed run in `runs`, and its stages in order."""

    runs: Path

    @property
    def root(self) -> Path:
        return self.runs / NAME

    @cached_property
    def stages(self) -> dict[str, str]:
        """{name: path} in order."""
        return json.loads((self.root / "planned.json").read_text())

    def make(self, *only: str) -> None:
        got = command(self.runs, *(["--only", *only] if only else []))
        assert got.code == 0, got

    def before(self, stage: str, runs: Path) -> Path:
        """A copy of the run as it was when everything before this stage was done."""
        names = list(self.stages)
        (runs / NAME).mkdir(parents=True)
        for name in names[: names.index(stage)]:
            shutil.copytree(self.root / self.stages[name], runs / NAME / self.stages[name])
        shutil.copy(self.root / "planned.json", runs / NAME)
        return runs

    def difference(self, runs: Path, stages: list[str]) -> str:
        """How what these stages left differs from the undisturbed run, in words; empty where it does not."""
        there = runs / NAME
        found = [differing(self.root / self.stages[s], there / self.stages[s]) for s in stages]
        if "fits" in stages:
            found += [f"{n} differs" for n in TOP if not same(self.root / n, there / n)]
        if "report" in stages:
            top = [p.relative_to(self.root) for p in self.root.rglob("*") if p.parent.name in (NAME, "figures")]
            top = [p for p in top if (self.root / p).is_file() and p.name not in TIMES]
            found += [f"{p} differs" for p in top if not same(self.root / p, there / p)]
            found += [] if (there / "report.html").read_text().rstrip().endswith("</html>") else ["half a report.html"]
        return "; ".join(filter(None, found))


def same(a: Path, b: Path) -> bool:
    if not b.exists():
        return False
    if a.name in LISTS:
        return a.read_text().splitlines()[:1] == b.read_text().splitlines()[:1]
    return a.read_bytes() == b.read_bytes()


def files_of(directory: Path) -> set[Path]:
    return {p.relative_to(directory) for p in directory.rglob("*") if p.is_file()}


def differing(a: Path, b: Path) -> str:
    """How a stage's directory differs from the undisturbed one; files with times, what libraries order or name
    by chance, and what a killed holder's lock left, apart."""
    want, have = files_of(a), files_of(b)
    outside = {p for p in want if "params" not in p.parts}
    if lost := sorted(str(p) for p in outside - have):
        return f"{b.name} lacks {', '.join(lost)}"
    free = {p for p in have if p.parts[:2] == ("params", "state") or p.name.lstrip(".").startswith("HOLDER")}
    more = sorted(str(p) for p in have - want - free)
    if more:
        return f"{b.name} has {', '.join(more)} too"
    exact = {p for p in outside if p.name not in TIMES and "array_record" not in p.name}
    if wrong := sorted(str(p) for p in exact if not same(a / p, b / p)):
        return f"{b.name}: {', '.join(wrong)} differ"
    if (a / "params").exists():
        try:
            if not same_params(a / "params", b / "params"):
                return f"{b.name}: params differ"
        except ValueError as error:  # of a stage that says it is done
            return f"{b.name}: params cannot be read: {str(error)[:200]}"
    if (a / "dataset").exists() and not same_rows(a / "dataset", b / "dataset"):
        return f"{b.name}: comparisons differ"
    return ""


def same_rows(a: Path, b: Path) -> bool:
    """Whether two datasets hold the same comparisons: within a row tfds orders the fields anew in every process."""
    from rmo.worlds.comparisons import read_comparisons

    for split in ("train", "validation"):
        pairs = zip(read_comparisons(a, split), read_comparisons(b, split), strict=True)
        if not all(np.array_equal(x, y) for x, y in pairs):  # type: ignore[arg-type]
            return False
    return True


def same_params(a: Path, b: Path) -> bool:
    """Whether two checkpoints hold the same bytes, however they are laid out."""
    import jax
    from orbax.checkpoint import v1 as ocp

    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # whatever devices it was saved from
    like = [
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), ocp.metadata(str(p)).metadata)
        for p in (a, b)
    ]
    left, right = (jax.tree.leaves_with_path(ocp.load(str(p), shapes)) for p, shapes in zip((a, b), like, strict=True))
    if [path for path, _ in left] != [path for path, _ in right]:
        return False
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for (_, x), (_, y) in zip(left, right, strict=True))


def dead_pid() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def as_of_another(runs: Path) -> None:
    """Have it that a process that is gone left this directory: a kill is only played in this one."""
    gone = dead_pid()
    for holder in runs.rglob("HOLDER"):
        with contextlib.suppress(ValueError):
            holder.write_text(json.dumps(json.loads(holder.read_text()) | {"pid": gone}))
    for part in list(runs.rglob(f".HOLDER.*.{os.getpid()}*")):
        part.rename(part.with_name(part.name.replace(str(os.getpid()), str(gone))))
