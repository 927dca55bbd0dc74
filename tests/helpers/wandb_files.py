"""Reads what wandb wrote: a .wandb file holds protobuf records in LevelDB's log format. wandb itself reads them in Go."""

import json
import struct
import time
from pathlib import Path
from types import SimpleNamespace

BLOCK = 32768


def records(path):
    from wandb.proto import wandb_internal_pb2 as pb

    data, at, whole = path.read_bytes(), 7, b""  # the file begins with 7 bytes that say what it is
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # a header is never split
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole of a record, or its end
            record = pb.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def read(directory: Path, patience: float = 10.0):
    """One wandb run, from the directory that it was written to: what it was begun with, its rows by step, its summary,
    files of its artifacts. wandb's own process may still be writing when a run is finished."""
    (path,) = directory.glob("*.wandb")
    until = time.monotonic() + patience
    while (said := parse(path)).code is None and time.monotonic() < until:
        time.sleep(0.1)
    return said


def parse(path: Path):
    said = SimpleNamespace(rows={}, steps=[], summary={}, artifacts={}, code=None)
    values = lambda items: {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            said.run = record.run
            said.config = values(record.run.config.update)
        elif kind == "history":
            said.steps.append(record.history.step.num)
            said.rows[said.steps[-1]] = values(record.history.item)
        elif kind == "summary":
            said.summary |= values(record.summary.update)
        elif kind == "artifact":
            said.artifacts[record.artifact.name] = [entry.path for entry in record.artifact.manifest.contents]
        elif kind == "exit":
            said.code = record.exit.exit_code
    return said


def read_all(run_directory: Path):
    """Every wandb run of a run directory, by the name of its stage."""
    found = [read(path) for path in sorted((run_directory / "wandb").glob("offline-run-*"))]
    assert len({said.run.run_id for said in found}) == len(found)
    return {said.run.display_name: said for said in found}
