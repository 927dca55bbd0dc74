"""Parameters and training states as orbax checkpoints. All processes of a run save and load together."""

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from rmo.runtime import checksums, errors, hosts
from rmo.runtime.files import SCRATCH, RunError, full, naming, need_hold, remote, remove, write_text
from rmo.runtime.types import Tree

if TYPE_CHECKING:
    from orbax.checkpoint import v1 as ocp


# ValueErrors that the disk or a bucket is the cause of: how tensorstore's begin, and what orbax says where a part that
# it has just written cannot be read.
OF_STORAGE = re.compile(
    r"\b(PERMISSION_DENIED|UNAUTHENTICATED|NOT_FOUND|UNAVAILABLE|RESOURCE_EXHAUSTED|FAILED_PRECONDITION|INTERNAL"
    r"|DATA_LOSS|DEADLINE_EXCEEDED|ABORTED|CANCELLED|UNKNOWN|INVALID_ARGUMENT|OUT_OF_RANGE): "
    r"|No ArrayMetadata found for process_index|Checkpoint directory does not exist"
)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what saves a checkpoint.

    Raises:
      OSError, RunError: it cannot be written; names it.
    """
    try:
        with naming(path):
            yield
    except OSError as error:
        if error.errno is not None or not_its_fault(error):
            raise
        raise unwritten(path, error) from error
    except ValueError as error:
        if not_its_fault(error) or not OF_STORAGE.search(str(error)):
            raise
        raise unwritten(path, error) from error


def unwritten(path: Path, error: Exception) -> RunError:
    """What orbax met on the disk or in the bucket, as one line."""
    advice = "see that there is space and the right to write there, the same command continues"
    return RunError(f"cannot write {path}: {first_line(error)[:250]}: {advice}")


def save_params(path: Path, params: Tree) -> None:
    """A pytree of arrays as an orbax checkpoint."""
    from orbax.checkpoint import v1 as ocp

    need_hold()
    with writing(path):
        ocp.save(full(path), params, overwrite=True)
    agreed(path, partial(need_whole, path))


def need_whole(path: Path) -> None:
    """Raises RunError where orbax passed over an error of the disk while it joined what processes had written, and says
    that all is saved: then the parts are there, and not what is made of them."""
    state = path / "state"
    try:
        joined = remote(path) or (state / "manifest.ocdbt").exists() or not any(state.glob("ocdbt.process_*"))
    except OSError as error:
        raise unwritten(path, error) from error
    if not joined:
        raise unwritten(path, OSError("its parts were not joined"))


def load_params(path: Path, like: Tree) -> Tree:
    """The checkpoint at `path` with the structure, shapes and shardings of `like` (arrays or ShapeDtypeStructs).

    Raises:
      RunError: it is missing, damaged, or has other shapes.
    """
    from orbax.checkpoint import v1 as ocp

    agreed(path, partial(checksums.check_tree, path))
    try:
        return ocp.load(full(path), like)
    except Exception as error:
        if not_its_fault(error):
            raise
        raise RunError(f"cannot load {path}: {first_line(error)}; {checksums.advice(path)}") from error


def agreed(path: Path, check: Callable[[], None]) -> None:
    """Have one process check a checkpoint, since it has to read it.

    Raises:
      RunError: in all processes, where it is not what was written.
    """
    wrong = None
    if hosts.writer():
        try:
            check()
        except RunError as error:
            wrong = error
    if hosts.agree(np.bool_(wrong is not None)):
        raise wrong or RunError(f"{path} is damaged, as process 0 says: {checksums.advice(path)}")


def not_its_fault(error: Exception) -> bool:
    """Whether another process, the network or memory, and not the checkpoint, is why it could not be loaded."""
    return hosts.lost(error) or hosts.passing(error) or errors.out_of_memory(error)


def first_line(error: Exception) -> str:
    """What an error says first; its type where it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class Checkpoints:
    """Training checkpoints of one stage; only the newest is kept."""

    def __init__(self, directory: Path):
        self.directory = directory / SCRATCH / "checkpoints"
        self.list = directory / SCRATCH / "checkpoints.sha256"  # of the newest's files

    def _checkpointer(self) -> "ocp.training.Checkpointer":
        from orbax.checkpoint import v1 as ocp

        newest: Any = ocp.training.preservation_policies.LatestN(1)
        return ocp.training.Checkpointer(full(self.directory), preservation_policy=newest, cleanup_tmp_directories=True)

    def save(self, step: int, state: Tree) -> None:
        """Write the state reached after `step` updates; all processes together."""
        need_hold()
        with writing(self.directory), self._checkpointer() as checkpointer:
            checkpointer.save(step, state)
        newest = self.directory / str(step)
        try:
            agreed(newest, partial(need_whole, newest))
        except RunError:
            remove(newest)  # else the same command would begin with it
            raise
        if hosts.writer():
            write_text(self.list, checksums.sealed(self.directory, str(step), most=checksums.LARGE))

    def restore(self, state: Tree) -> tuple[Tree, int]:
        """(saved state, its step), or (`state`, 0) where nothing was saved.

        Raises:
          RunError: what was saved is broken or has other shapes.
        """
        if not hosts.agree(np.bool_(self.directory.exists())):
            return state, 0
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        with self._checkpointer() as checkpointer:
            latest = checkpointer.latest
            if latest is None:
                return state, 0
            agreed(self.directory, partial(checksums.check_list, self.list, str(latest.step), self.directory))
            try:
                return checkpointer.load(latest.step, like), latest.step
            except Exception as error:
                if not_its_fault(error):
                    raise
                line = first_line(error)
                raise RunError(f"cannot load {self.directory}: {line}; remove it and run again") from error
