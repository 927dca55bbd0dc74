"""A run in a bucket, disturbed at any request to the service; then the same command again.

    launch/local.sh python -m tests.faults --part buckets --cases 100

The stand-in for Google Cloud Storage serves in this process, so that every request is seen, those of C++ code (arrays of
checkpoints) too. A kill keeps what the bucket holds at that request; whatever the dying command asks for after it is
refused. Otherwise as `kills`, whose finished run on a disk is what results are compared with.
"""

import contextlib
import json
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.faults import kills, one_stage
from tests.faults.case import Case
from tests.faults.disk import KILL, STALE, Killed, Operation
from tests.faults.kills import Point
from tests.faults.one_stage import Finished
from tests.helpers import gcs

CASES = 60
BUCKET = "bucket"
DENIED, FULL, BUSY, LOST = "403", "403 to every write", "503", "lost connection"
FAULTS = {
    "read": (KILL, DENIED, BUSY, LOST), "look": (KILL, DENIED, BUSY, LOST), "list": (KILL, DENIED, BUSY, LOST, STALE),
    "write": (KILL, DENIED, BUSY, LOST, FULL), "delete": (KILL, DENIED, BUSY, LOST), "copy": (KILL, DENIED, BUSY, FULL),
}  # fmt: skip


def operation(method: str, path: str, query: dict[str, str], data: bytes) -> Operation:
    """What a request asks for."""
    name = unquote(path.split("/o/", 1)[1]) if "/o/" in path else query.get("name", query.get("prefix", ""))
    if "/upload/" in path:
        found = re.search(rb'"name": *"([^"]+)"', data[:2000])
        return Operation("write", name or (found[1].decode() if found else query.get("upload_id", "")))
    if re.search(r"/(copyTo|rewriteTo|moveTo)/", path):
        return Operation("copy", name)
    if path.startswith("/batch") or method == "DELETE":
        return Operation("delete", name)
    if path.endswith("/o"):
        return Operation("list", name)
    return Operation("read" if query.get("alt") == "media" else "look", name)


class Service(gcs.Handler):
    """Tells whoever disturbs it of every request."""

    disturbed: "Requests | None" = None

    def route(self, path: str, q: dict[str, str], data: bytes) -> None:
        if self.disturbed is None:
            super().route(path, q, data)
            return
        fault = self.disturbed.step(operation(self.command, path, q, data))
        if fault == LOST:
            self.close_connection = True
            self.connection.close()
        elif fault == STALE:
            with gcs.LOCK:
                name = max(
                    (n for n in gcs.BUCKETS[BUCKET] if n.startswith(q.get("prefix", ""))),
                    key=lambda n: gcs.BUCKETS[BUCKET][n]["generation"],
                    default="",
                )
                lost = gcs.BUCKETS[BUCKET].pop(name, None)
                try:
                    super().route(path, q, data)
                finally:
                    if lost is not None:
                        gcs.BUCKETS[BUCKET].setdefault(name, lost)
        elif fault:
            raise gcs.Error(int(fault[:3]), "disturbed", "forbidden" if fault[:3] == "403" else "backendError")
        else:
            super().route(path, q, data)


class Requests:
    """`fault` at request number `at`; without one, requests are counted only."""

    def __init__(self, at: int = -1, fault: str = ""):
        self.at, self.fault, self.lock = at, fault, threading.Lock()
        self.seen: list[Operation] = []
        self.struck: Operation | None = None
        self.left: dict[str, dict[str, Any]] | None = None  # what the bucket held when it was killed

    def step(self, here: Operation) -> str:
        """How to answer a request; empty: as always."""
        with self.lock:
            self.seen.append(here)
            hit = len(self.seen) == self.at + 1
            if hit:
                self.struck = here
            if self.fault == KILL and self.struck:
                if hit:
                    with gcs.LOCK:
                        self.left = {name: dict(o) for name, o in gcs.BUCKETS[BUCKET].items()}
                return DENIED
            if self.fault == FULL and self.struck and here.kind in ("write", "copy"):
                return DENIED
            return self.fault if hit else ""

    def __enter__(self) -> "Requests":
        Service.disturbed = self
        return self

    def __exit__(self, *_: object) -> None:
        Service.disturbed = None
        if self.left is not None:
            raise Killed


def serve() -> None:
    """Begin to serve gs://bucket, and have this process find it."""
    gcs.BUCKETS[BUCKET] = {}
    server = gcs.Server(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    os.environ |= {
        "STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url, "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
        "FSSPEC_GCS_TOKEN": "anon", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }  # fmt: skip


def upload(runs: Path, to: str) -> None:
    for path in runs.rglob("*"):
        if path.is_file():
            gcs.put(BUCKET, f"{to}/{path.relative_to(runs)}", path.read_bytes(), "application/octet-stream", {})


def download(name: str, where: Path) -> Path:
    for key, o in list(gcs.BUCKETS[BUCKET].items()):
        if key.startswith(name + "/") and not key.endswith("/"):
            path = where / key.removeprefix(name + "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(o["data"])
    return where


def clear() -> None:
    gcs.BUCKETS[BUCKET].clear()


def begin(finished: Finished, where: Path, stage: str, name: str) -> str:
    """The run before a stage, in the bucket; returns its URL."""
    clear()
    runs = finished.before(stage, kills.fresh(where))
    upload(runs, name)
    shutil.rmtree(runs)
    return f"gs://{BUCKET}/{name}"


def put_back(left: dict[str, dict[str, Any]], was: str, name: str) -> str:
    """What a kill left, under another name, as if another process had left it; returns its URL."""
    clear()
    gone = one_stage.dead_pid()
    for key, o in left.items():
        if key.endswith("/HOLDER"):
            with contextlib.suppress(ValueError):
                o = o | {"data": json.dumps(json.loads(o["data"]) | {"pid": gone}).encode()}
        gcs.put(BUCKET, key.replace(was, name, 1), o["data"], o["type"], {})
    return f"gs://{BUCKET}/{name}"


def differs(finished: Finished, where: Path, name: str, stage: str) -> str:
    there = download(name, kills.fresh(where))
    found = finished.difference(there, [stage])
    shutil.rmtree(there)
    return found


def play(finished: Finished, where: Path, point: Point, fault: str, name: str) -> str | None:
    """As `kills.play`, in the bucket."""
    url, only = begin(finished, where, point.stage, name), f"--only=={point.stage}"
    requests = Requests(point.number, fault)
    first = kills.timed(url, only, disk=requests)
    if requests.struck is None:
        return None
    problem = ""
    if requests.left is not None:
        url, name = put_back(requests.left, name, f"{name}-left"), f"{name}-left"
    elif first.code == 0:
        return differs(finished, where, name, point.stage)
    else:
        problem = first.refusal("gs://")
    second = kills.timed(url, only)
    if second.code != 0:
        return f"the same command again: {second.refusal('gs://') or second.line}"
    return problem or differs(finished, where, name, point.stage)


def trace(finished: Finished, where: Path, stages: Sequence[str]) -> tuple[list[Point], dict[str, float]]:
    """Every request of making every stage, and the seconds each took."""
    points, seconds = [], {}
    for stage in stages:
        url, started = begin(finished, where, stage, "traced"), time.monotonic()
        with Requests() as requests:
            got = one_stage.command(url, f"--only=={stage}")
        seconds[stage] = time.monotonic() - started
        assert got.code == 0, got
        difference = differs(finished, where, "traced", stage)
        assert not difference, difference
        points += [Point(stage, number, found) for number, found in enumerate(requests.seen)]
    return points, seconds


def described(point: Point, fault: str) -> str:
    return f"bucket: {point.stage} {point.number} {fault} ({point.operation.kind} {point.operation.path})"


def campaign(cases: int, seed: int, where: Path) -> Iterator[Case]:
    """Faults at requests to a bucket."""
    one_stage.prepare(where)
    serve()
    with one_stage.often():
        yield from tried(cases, seed, where)


def tried(cases: int, seed: int, where: Path) -> Iterator[Case]:
    finished, rng = kills.finished_run(where), random.Random(seed)
    points, seconds = trace(finished, where, list(finished.stages))
    kills.write_points(where, points)
    chosen = kills.choose(points, seconds, FAULTS, cases, rng)
    for number, (point, fault) in enumerate(chosen):
        problem = play(finished, where, point, fault, f"case-{number}")
        if problem is not None:
            yield Case(described(point, fault), problem)


def summary(where: Path, cases: list[Case]) -> list[str]:
    return kills.summary(where, cases, "buckets")
