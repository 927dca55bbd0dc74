"""Files of a run: small JSON/NPZ/CSV written whole or not at all, orbax checkpoints, logs, the wandb mirror.

A run directory is local or a URL such as gs://bucket/runs. Of several processes only one writes (`hosts.writer`).
"""

import atexit
import contextlib
import csv
import functools
import io
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from rmo import hosts

Tree = Any


SCRATCH = "scratch"  # what a stage needs only until it is done; removed after DONE


class RunError(RuntimeError):
    """What is wrong with a file of the run and what to do about it, in one line."""


# Paths.


def directory(name: str | Path) -> Path:
    """A local path or, of a URL, an `epath.Path`, which has the same methods.

    Raises:
      RunError: there is nothing to read such URLs with.
    """
    if "://" not in str(name):
        return Path(name)
    from etils import epath
    from fsspec import config

    config.conf.setdefault("gcs", {})["use_listings_cache"] = False  # it would not see what other hosts write
    try:
        found: Any = epath.Path(str(name))
        found.exists()
    except Exception as error:
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunError(
            f"cannot open {name}: {line}; for gs:// install gcsfs (EXTRAS=dev,gcs launch/local.sh)"
        ) from error
    return found


def remote(path: Path) -> bool:
    return not isinstance(path, Path)


def full(path: Path) -> str:
    """As orbax takes it."""
    return str(path if remote(path) else path.absolute())


def remove(path: Path) -> None:
    """A whole directory, if it is there."""
    if hosts.writer():
        if not remote(path):
            shutil.rmtree(path, ignore_errors=True)
        elif path.exists():
            path.rmtree()  # type: ignore[attr-defined]


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A local directory for libraries that know no URLs; what is in it at the end is what `path` holds."""
    if not remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)
        for file in Path(made).rglob("*"):
            if file.is_file():
                write_bytes(path / str(file.relative_to(made)), file.read_bytes())


@functools.cache
def local(path: Path) -> Path:
    """The directory itself or, of a URL, a copy on this machine."""
    if not remote(path):
        return path
    made = Path(tempfile.mkdtemp(prefix="rmo-"))
    _copies.callback(shutil.rmtree, made, ignore_errors=True)

    def copy(source: Any, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for item in source.iterdir():
            if item.is_dir():
                copy(item, target / item.name)
            else:
                (target / item.name).write_bytes(item.read_bytes())

    copy(path, made)
    return made


_copies = contextlib.ExitStack()
atexit.register(_copies.close)


# Small files.


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file in one move: a reader or a kill never sees half of it."""
    if not hosts.writer():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if remote(path):  # an object appears whole or not at all
        path.write_bytes(content)
        return
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """JSON with every float as Python prints it. numpy becomes plain; JSON has no infinity, so that becomes null."""

    def plain(x: Any) -> Any:
        if isinstance(x, np.ndarray | np.generic | jax.Array):
            x = x.tolist()
        if isinstance(x, dict):
            return {str(name): plain(item) for name, item in x.items()}
        if isinstance(x, list | tuple):
            return [plain(item) for item in x]
        return None if isinstance(x, float) and not math.isfinite(x) else x

    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises RunError where the file is missing or broken."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}; remove {path.parent} and run again") from error


def write_npz(path: Path, **arrays: Any) -> None:
    """Arrays by name."""
    if hosts.writer():
        whole = io.BytesIO()
        np.savez(whole, **{name: np.asarray(value) for name, value in arrays.items()})  # type: ignore[arg-type]
        write_bytes(path, whole.getvalue())


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Raises RunError where the file is missing or broken."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"cannot read {path}: {error}; remove {path.parent} and run again") from error


def write_csv(path: Path, columns: list[str], rows: Iterable[dict[str, Any]]) -> None:
    """Numbers at 9 significant digits (a float32 survives), empty where not known."""

    def cell(value: Any) -> str:
        if value is None or (isinstance(value, float) and not np.isfinite(value)):
            return ""
        return f"{value:.9g}" if isinstance(value, float) else str(value)

    lines = [",".join(columns)] + [",".join(cell(row.get(name)) for name in columns) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows as text."""
    text = path.read_bytes().decode("utf-8-sig")  # a spreadsheet may have put a byte-order mark
    return list(csv.DictReader(io.StringIO(text, newline="")))


def save_params(path: Path, params: Tree) -> None:
    """A pytree of arrays as an orbax checkpoint."""
    from orbax.checkpoint import v1 as ocp

    ocp.save(full(path), params, overwrite=True)


def load_params(path: Path, like: Tree) -> Tree:
    """The checkpoint at `path` with the structure, shapes and shardings of `like` (arrays or ShapeDtypeStructs).

    Raises:
      RunError: it is missing or has other shapes.
    """
    from orbax.checkpoint import v1 as ocp

    try:
        return ocp.load(full(path), like)
    except Exception as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"cannot load {path}: {line}; remove {path.parent} and run again") from error


class Checkpoints:
    """Training checkpoints of one stage; only the newest is kept."""

    def __init__(self, directory: Path):
        self.directory = directory / SCRATCH / "checkpoints"

    def _checkpointer(self):
        from orbax.checkpoint import v1 as ocp

        newest: Any = ocp.training.preservation_policies.LatestN(1)
        return ocp.training.Checkpointer(full(self.directory), preservation_policy=newest, cleanup_tmp_directories=True)

    def save(self, step: int, state: Tree) -> None:
        """Write the state reached after `step` updates; all processes together."""
        with self._checkpointer() as checkpointer:
            checkpointer.save(step, state)

    def restore(self, state: Tree) -> tuple[Tree, int]:
        """(saved state, its step), or (`state`, 0) where nothing was saved."""
        if not self.directory.exists():
            return state, 0
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        with self._checkpointer() as checkpointer:
            latest = checkpointer.latest
            if latest is None:
                return state, 0
            try:
                return checkpointer.load(latest.step, like), latest.step
            except Exception as error:
                line = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise RunError(f"cannot load {self.directory}: {line}; remove it and run again") from error


class Wandb:
    """Mirror of the logs; the files stay the truth. `run` is None when nothing is mirrored."""

    run: Any = None

    @classmethod
    def start(cls, project: str, name: str, root: Path, settings: dict[str, Any]) -> None:
        """Begin, or continue the run whose id the run directory holds."""
        if not hosts.writer():
            return
        import wandb

        id_file = root / "wandb_id"
        if not id_file.exists():
            write_text(id_file, wandb.util.generate_id())  # type: ignore[attr-defined]
        here = str(root) if not remote(root) else None
        cls.run = wandb.init(
            project=project, name=name, id=id_file.read_text().strip(), resume="allow", config=settings, dir=here
        )

    @classmethod
    def log(cls, prefix: str, step: int, values: dict[str, Any]) -> None:
        """Curves are drawn against `<prefix>/step`, since stages do not share a step counter."""
        if cls.run is not None:
            cls.run.log({f"{prefix}/{name}": value for name, value in values.items()} | {f"{prefix}/step": step})


def progress(name: str, total: int, unit: str, done: int = 0) -> tqdm:
    """A progress bar with ETA."""
    return tqdm(
        total=total, desc=f"{name:<24.24}", unit=unit, initial=done, mininterval=0.5, dynamic_ncols=True,
        disable=not hosts.writer(),
    )  # fmt: skip


class Log:
    """metrics.jsonl of one stage, its progress bar, and the wandb mirror."""

    every = 30.0  # seconds after which a file that cannot be appended to is written again

    def __init__(self, directory: Path, name: str, total: int, unit: str = "step"):
        self.path, self.name = directory / "metrics.jsonl", name
        self.bar = progress(name, total, unit)
        self.lines: list[str] = []  # of a URL: everything so far
        self.flushed = time.monotonic()

    def resume(self, step: int) -> None:
        """Drop what was written after the checkpoint: those steps come again."""
        kept = []
        if hosts.writer() and self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    break
                if row["step"] < step:
                    kept.append(line + "\n")
        self.lines = kept
        write_text(self.path, "".join(kept))
        self.bar.update(step - self.bar.n)

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        """One line; arrays over members become lists."""
        values = {name: value.tolist() for name, value in hosts.fetch(metrics).items()}
        if hosts.writer():
            self.append(json.dumps({"step": step, **values}) + "\n")
            Wandb.log(self.name, step, values)
        loss = values.get("loss", values.get("kl"))
        if loss is not None:
            self.bar.set_postfix_str(f"{'loss' if 'loss' in values else 'KL'} {np.mean(loss):.4g}", refresh=False)
        self.bar.update(step + 1 - self.bar.n)

    def append(self, line: str) -> None:
        if not remote(self.path):
            with open(self.path, "a") as file:
                file.write(line)
            return
        self.lines.append(line)
        if time.monotonic() - self.flushed > self.every:
            self.flush()

    def flush(self) -> None:
        """Before a checkpoint: what is logged up to it must not be lost."""
        if remote(self.path):
            write_text(self.path, "".join(self.lines))
            self.flushed = time.monotonic()

    def close(self) -> None:
        """Finish the file and the bar."""
        self.flush()
        self.bar.close()


def parts(
    directory: Path, count: int, make: Callable[[int], dict[str, np.ndarray]], log: Log
) -> Iterator[dict[str, np.ndarray]]:
    """Yield part 0..count-1, made once and kept in `directory`, so that a killed stage continues where it was.

    Raises:
      Preempted: the run was told to stop; what is made is kept.
    """
    log.resume(0)
    there = {file.name for file in directory.glob("*.npz")} if directory.exists() else set()
    found = hosts.agree(np.array([f"{i:05d}.npz" in there for i in range(count)]))
    for i in range(count):
        file = directory / f"{i:05d}.npz"
        if found[i]:
            part = read_npz(file)
        else:
            part = make(i)
            write_npz(file, **part)
            if hosts.preempted():
                log.close()
                raise hosts.Preempted
        log.bar.update(i + 1 - log.bar.n)
        yield part
    log.close()
