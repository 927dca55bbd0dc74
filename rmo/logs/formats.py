"""Which reader reads a file: by its ending where that says what it is, else by what it holds."""

import re
from pathlib import Path

from rmo.logs.console import load_console
from rmo.logs.csv_tables import load_csv
from rmo.logs.event_files import is_events, load_events
from rmo.logs.json_shapes import load_json
from rmo.logs.rows import Loaded, LogError, Rows
from rmo.logs.wandb_files import load_parquet, load_wandb
from rmo.runtime import checksums, errors

KINDS = "CSV, JSON, JSONL, Parquet, TensorBoard's event files, wandb's .wandb, or what a trainer printed"
LARGEST = 1 << 30  # bytes of a text that is read whole
MARKUP = re.compile(r"\s*<(\?xml|!doctype|html|svg)\b", re.IGNORECASE)
ARCHIVES = (".gz", ".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst")


def load(path: Path) -> Rows:
    """Rows of one file, nested values under a/b/c.

    Raises:
      LogError: another format, or a line that cannot be read.
    """
    return load_file(path).rows


def load_file(path: Path) -> Loaded:
    """(rows, notes on how they were read) of one file.

    Raises:
      LogError: as `load`.
    """
    if not path.is_file():
        raise LogError(f"{path}: no such file{errors.instead(path)}")
    if path.suffix in ARCHIVES:
        raise LogError(f"{path} is packed: unpack it first")
    if is_events(path):
        return load_events(path)
    if path.suffix == ".wandb":
        return load_wandb(path)
    with open(path, "rb") as file:
        start = file.read(4)
    if path.suffix == ".parquet" or start == b"PAR1":
        return Loaded(load_parquet(path), [])
    if start == b":W&B":
        return load_wandb(path)
    return load_text(path)


def load_text(path: Path) -> Loaded:
    """(rows, notes) of a text file."""
    if path.stat().st_size > LARGEST:
        raise LogError(
            f"{path} is larger than a log of numbers: give the lines or columns with step, KL, gold and reward"
        )
    try:
        raw = checksums.content(path)  # it may be a run's own table
        # A spreadsheet may have put a byte-order mark, and what PowerShell redirects into a file is UTF-16.
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        if path.suffix in (".log", ".out", ".txt"):  # a terminal's log may hold a broken letter
            return load_console(path, path.read_bytes().decode("utf-8", errors="replace"))
        raise LogError(
            f"{path} is no UTF-8 text ({error.reason}): unpack it, if it is packed; or give {KINDS}"
        ) from error
    if not text.strip():
        raise LogError(f"{path} is empty: it holds no rows")
    if path.suffix in (".csv", ".tsv"):
        return Loaded(load_csv(path, text), [])
    if path.suffix in (".json", ".jsonl", ".ndjson"):
        return Loaded(load_json(path, text), [])
    return by_content(path, text)


def by_content(path: Path, text: str) -> Loaded:
    """(rows, notes) of a text whose name says nothing: JSON that can be read, a table, else what a program printed."""
    if MARKUP.match(text):
        raise LogError(f"{path} is a page or a picture, not a log: give {KINDS}")
    if text.lstrip()[0] in "{[":
        try:
            return Loaded(load_json(path, text), [])
        except LogError:
            pass
    header = text.split("\n", 1)[0]
    if re.fullmatch(r"[\w ./@-]+([,\t][\w ./@-]+)+\r?", header) and "\n" in text:
        return Loaded(load_csv(path, text), [])
    return load_console(path, text)
