"""The processes of one run, one per host or per GPU: joining, who writes, waiting for one another, being told to stop.

All run the same stages on one mesh over all their devices. Each puts only its own rows of a batch on its devices,
process 0 alone writes (checkpoints all write together), and what the host reads of an array all read. The directory of
runs must be one that they share.
"""

import atexit
import errno
import functools
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, TextIO

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from rmo.runtime.types import Tree

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PREEMPTED, LOST, HELD = 75, 76, 77  # exit codes: the same command continues
READER_GONE = (errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EDQUOT)  # of a pipe, of a terminal, of a file on a full disk
LINGER = 60  # seconds for what ends with the process; a library's thread may wait for what an error kept from coming
SILENCE = 30  # seconds without a sign of life after which a process counts as lost


class Preempted(RuntimeError):
    """Everything is saved; the run was told to stop."""


class HostsError(RuntimeError):
    """The processes cannot be joined: what is wrong with the environment, in one line."""


class _Stop:
    asked = False
    polls = 0  # how often `preempted` was called; equal in all processes


def explicit(environ: Mapping[str, str]) -> tuple[str, int, int] | None:
    """(coordinator, processes, this process) as JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say.

    Raises:
      HostsError: only some of them are there, or they are not what they should be.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = [environ.get(name, "") for name in names]
    if not any(given):
        return None
    try:
        address, count, index = given[0], int(given[1]), int(given[2])
    except ValueError:
        raise HostsError(f"{', '.join(names)} are {given}: give all three, e.g. 10.0.0.2:8476, 4 and 0") from None
    if ":" not in address or not 0 <= index < count:
        raise HostsError(f"{', '.join(names)} are {given}: the address needs a port, the process is 0 to {count - 1}")
    return address, count, index


def several(environ: Mapping[str, str]) -> bool:
    """Whether Slurm, GKE or Cloud TPU started this process beside others (RMO_HOSTS=1 says so where nothing else does:
    a TPU VM knows the other workers, but not whether they were started too)."""
    tasks = environ.get("SLURM_STEP_NUM_TASKS", "1")
    workers = environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    slices = environ.get("MEGASCALE_NUM_SLICES", "1")
    return bool(environ.get("RMO_HOSTS")) or tasks != "1" or len(workers) > 1 or slices != "1"


def join(timeout: int = 300) -> None:
    """Become one of the processes that the environment tells of, if it does; before any device is touched.

    Raises:
      HostsError: it cannot be done.
    """
    given = explicit(os.environ)
    if given or several(os.environ):
        address, count, index = given or (None, None, None)
        try:
            jax.distributed.initialize(
                address,
                count,
                index,
                initialization_timeout=timeout,
                heartbeat_timeout_seconds=SILENCE,
                shutdown_timeout_seconds=60,
            )
        except (RuntimeError, ValueError) as error:
            raise HostsError(f"cannot join the other processes: {' '.join(str(error).split())[:300]}") from error
    if alone():
        signal.signal(signal.SIGTERM, _ask)  # of several, JAX's own notice tells all of them of one stopping point
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # below nohup it is ignored
        signal.signal(signal.SIGHUP, _terminal_gone)


def _terminal_gone(number: int, frame: FrameType | None) -> None:
    """A terminal that is closed, or whose connection ends, asks as SIGTERM does: what was made is saved."""
    signal.raise_signal(signal.SIGTERM)


def _ask(number: int, frame: FrameType | None) -> None:
    _Stop.asked = True


def preempted() -> bool:
    """Whether to save and stop now. All processes must ask equally often, and get the same answer."""
    _Stop.polls += 1
    if alone():
        return _Stop.asked
    from jax.experimental import multihost_utils

    # It says so once, at the same poll everywhere; whoever asks later must hear it too.
    _Stop.asked = _Stop.asked or multihost_utils.reached_preemption_sync_point(_Stop.polls)
    return _Stop.asked


def alone() -> bool:
    """Whether this process is the only one; asked without touching a device."""
    return not jax.distributed.is_initialized()


def lost(error: Exception) -> bool:
    """Whether an error says that another process cannot be reached."""
    signs = r"gloo|connection|coordination|heartbeat|unavailable|deadline|barrier|preempted"
    # XLA's errors come as either.
    return not alone() and isinstance(error, RuntimeError | ValueError) and bool(re.search(signs, str(error), re.I))


def passing(error: BaseException) -> bool:
    """Whether a disk or network failed in a way that may be over when the run is started again."""
    known = {errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH}
    codes = isinstance(error, OSError) and error.errno in known
    return codes or isinstance(error, TimeoutError | ConnectionError)


def leave(code: int, why: str) -> None:
    """End with one line. One of several processes does not wait for the others, which may be waiting for it."""
    line = f"rmo: {' '.join(why.split())[:600]}"
    if code != 2:  # in the middle of work: there may be a bar
        line = f"\n{line}"
    outlive_readers()
    print(line, file=sys.stderr, flush=True)
    if not alone():
        sys.stdout.flush()
        os._exit(code)
    _Leaving.begin(code)
    sys.exit(code)


class _Leaving:
    """Ends the process some time after the interpreter has begun to end, whatever other threads wait for."""

    code: int | None = None

    @classmethod
    def begin(cls, code: int) -> None:
        if cls.code is None:  # before the pools of threads, whose end is waited for without limit
            getattr(threading, "_register_atexit", atexit.register)(cls.watch)
        cls.code = code

    @classmethod
    def watch(cls) -> None:
        timer = threading.Timer(LINGER, os._exit, (cls.code,))
        timer.daemon = True
        timer.start()


class _Outliving(io.FileIO):
    """A stream whose reader may go: what is said after that is said to nobody, and nothing fails for it."""

    def write(self, content: "ReadableBuffer", /) -> int | None:
        try:
            return super().write(content)
        except OSError as error:
            if error.errno not in READER_GONE:
                raise
            _to_nobody(self.fileno())
            return super().write(content)


def _to_nobody(descriptor: int) -> None:
    """Libraries that write to it themselves are spared too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def outlive_readers() -> None:
    """From here on this process goes on where nobody reads its stdout or stderr any more: a pipe that `head` closed, a
    terminal whose connection ended, a full disk below a file of them. Work of hours is worth more than its lines."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or stream is not getattr(sys, f"__{name}__") or isinstance(_raw(stream), _Outliving):
            continue  # a notebook's or a test's
        try:
            stream.flush()
        except OSError:
            _to_nobody(stream.fileno())
            stream.flush()
        raw = io.BufferedWriter(_Outliving(stream.fileno(), "w", closefd=False))
        outliving = io.TextIOWrapper(
            raw,
            stream.encoding,
            stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, outliving)
        setattr(sys, f"__{name}__", outliving)


def _raw(stream: TextIO) -> object:
    """What a stream writes to in the end."""
    return getattr(getattr(stream, "buffer", None), "raw", None)


def writer() -> bool:
    """Whether this process writes files, shows progress and talks to wandb."""
    return alone() or jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until all processes are here: what the writer wrote before it, all can read after it."""
    if not alone():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def agree(value: Tree) -> Tree:
    """Process 0's value (numbers) in all processes: for what depends on clocks or on files just written."""
    if alone():
        return value
    from jax.experimental import multihost_utils

    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, value)))


@functools.cache
def everywhere(mesh: jax.sharding.Mesh) -> Callable[[jax.Array], jax.Array]:
    """The program that copies arrays to all devices of a mesh."""
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))


def fetch(tree: Tree) -> Tree:
    """Whole arrays on every host, as numpy."""

    def whole(x: jax.Array | np.ndarray | float) -> jax.Array | np.ndarray | float:
        if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
            return x
        assert isinstance(x.sharding, NamedSharding)
        return everywhere(x.sharding.mesh)(x)

    return jax.tree.map(np.asarray, jax.device_get(jax.tree.map(whole, tree)))
