"""One command of `rmo` in this process: what it ended with, what it said, what it left."""

import contextlib
import io
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from rmo.cli import main
from rmo.cli.commands import run
from tests.helpers import fuzz_people
from tests.helpers.fuzz_people import Hang, limited

SECONDS = 20.0
EXIT_CODES = (0, 2, 75, 76, 77, 78, 130)  # rmo/cli/README.md; 1 is a bug


class Ended(NamedTuple):
    """How a command ended."""

    code: int | None  # None: it did not end as commands do
    out: str
    err: str
    failure: str = ""  # the traceback's last line, or that it hung
    asked: tuple[str, ...] = ()  # addresses that it wanted to reach


@contextlib.contextmanager
def no_network(asked: list[str]) -> Iterator[None]:
    """Every address that is looked up or connected to is written down and refused."""

    def refuse(*args: object, **_: object) -> None:
        asked.append(str(args[0] if isinstance(args[0], str) else args[1:]))
        raise OSError("no network in this test")

    names = ("getaddrinfo", "gethostbyname", "create_connection")
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(socket, name, refuse))
        stack.enter_context(mock.patch.object(socket.socket, "connect", refuse))
        yield


@contextlib.contextmanager
def inside(directory: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def call(args: Sequence[str], where: Path, seconds: float = SECONDS) -> Ended:
    """`rmo ARGS` in directory `where`. A run stops where its first stage would be made."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict", write_through=True)  # as Python opens them
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", write_through=True)
    asked: list[str] = []
    environment = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "COLUMNS": "100"}
    code, failure, began = None, "", time.process_time()
    with (
        inside(where),
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", ["rmo", *args]),
        mock.patch.object(run, "make"),
        mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True),  # which was read when it was imported
        no_network(asked),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            with limited(seconds):
                main.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except Hang:
            failure = f"more than {seconds:g} s"
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(repr(error).split())[:200]
            failure = f"traceback: {said} at {Path(last.filename).name}:{last.lineno}"
    if not failure and time.process_time() - began > 0.9 * seconds:  # who catches everything caught the watchdog too
        failure = f"more than {seconds:g} s"
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    return Ended(code, *said, failure, tuple(asked))


def meant(name: str) -> bool:
    """Whether a command that fails writes this on purpose: gold judged by step, where nothing can be fitted."""
    return Path(name).name == "gold_by_step.json"


def half_written(directory: Path, kinds: tuple[str, ...]) -> list[str]:
    """What `fuzz_people.half_written` says of files of some kinds."""
    said = fuzz_people.half_written(directory)
    return [line for line in said if line.partition(":")[0].endswith(kinds)]


def problem(ended: Ended, fresh: Path | None = None) -> str:
    """What is wrong with how a command ended; empty where nothing is.

    Args:
      fresh: a directory that was empty before; a command that fails leaves nothing there, and none leaves a part.
    """
    if ended.failure:
        return ended.failure
    if ended.code not in EXIT_CODES:
        return f"exit code {ended.code}: {ended.err.strip()[:200]!r}"
    if ended.asked:
        return f"asked the network for {', '.join(ended.asked)[:200]}"
    lines = [line for line in ended.err.splitlines() if line.strip()]
    if ended.code == 2 and (len(lines) != 1 or not lines[0].startswith("rmo: ") or not lines[0][5:].strip()):
        return f"not one line: {ended.err.strip()[:300]!r}"
    if "Traceback" in ended.err + ended.out:
        return f"a traceback on the way: {ended.err[-300:]!r}"
    if fresh is not None:
        left = sorted(str(path.relative_to(fresh)) for path in fresh.rglob("*"))
        parts = [name for name in left if name.endswith((".part", ".tmp", ".incomplete"))]
        wrong = parts or (ended.code and [name for name in left if (fresh / name).is_file() and not meant(name)])
        if wrong:
            return f"left behind: {', '.join(wrong)[:200]}"
        if broken := half_written(fresh, (".json", ".jsonl", ".npz")):
            return f"half-written: {'; '.join(broken)[:200]}"
    return ""
