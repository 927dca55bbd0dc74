"""The tables of `rmo/worlds/README.md`, "What we read, and how", say what the code does."""

import bz2
import gzip
import json
import lzma
import re
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from rmo.worlds import sources
from rmo.worlds.dialogue import Malformed
from rmo.worlds.records import Record
from rmo.worlds.shapes import SHAPES, record_of

README = Path(__file__).parents[2] / "rmo" / "worlds" / "README.md"


def table(first: str) -> list[list[str]]:
    """The rows of the table whose first column has this head."""
    text = README.read_text().partition("## What we read, and how")[2].partition("\n## ")[0]
    body = text.partition(f"| {first} |")[2].partition("\n\n")[0].split("\n")[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in body if line]


def shown(text: str) -> str:
    return "`" + text.replace("\n", "\\n") + "`"


def told(record: Record) -> str:
    """What became of a row, in the table's words."""
    prompt = record.prompt
    if not isinstance(prompt, str):
        prompt = "; ".join(f"{m.role}: {m.content}" for m in prompt)
    texts = [r.text for r in record.responses]
    parts = [f"{shown(texts[a])} over {shown(texts[b])}" for a, b in record.preferences]
    if not parts:
        parts = [
            shown(r.text) + {None: "", True: ", desirable", False: ", undesirable"}[r.desirable]
            for r in record.responses
        ]
    if len(record.responses) == 1 and record.responses[0].score is not None:
        parts[0] += f", {record.responses[0].score:g}"
    out = f"to {shown(prompt)}: {', '.join(parts)}" if parts else f"prompt {shown(prompt)}"
    return out + "".join(f"; left out: {why}" for why in record.left_out)


SHAPE_ROWS = table("shape")


@pytest.mark.parametrize("row", SHAPE_ROWS, ids=[f"{row[0]}-{i}" for i, row in enumerate(SHAPE_ROWS)])
def test_a_row_becomes_what_the_table_says(row):
    name, example, becomes = row
    record = record_of(json.loads(example.strip("`")))
    assert record.shape == name
    assert told(record) == becomes


def test_every_shape_is_in_the_table():
    assert {row[0] for row in SHAPE_ROWS} == {shape.name for shape in SHAPES}


@pytest.mark.parametrize("row", table("refused"), ids=lambda row: row[1])
def test_what_is_refused_is_refused_in_these_words(row):
    example, why = row
    with pytest.raises(Malformed, match=re.escape(why.strip("`"))):
        sources.comparisons_of(json.loads(example.strip("`")))


ROWS = [{"prompt": "Über?", "chosen": "é\u2028", "rejected": "c"}, {"prompt": "b", "chosen": "d", "rejected": "e"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def saved(path: Path) -> Path:
    """As `datasets.save_to_disk` writes it."""
    path.mkdir(parents=True)
    arrow = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_stream(str(path / "data-00000-of-00001.arrow"), arrow.schema) as stream:
        stream.write_table(arrow)
    (path / "dataset_info.json").write_text("{}")
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    return path


def split(path: Path) -> Path:
    saved(path / "train")
    (path / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    return path


def parquet(path: Path) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


def feather(path: Path) -> Path:
    pyarrow.feather.write_feather(pyarrow.Table.from_pylist(ROWS), path)
    return path


def directory(path: Path) -> Path:
    path.mkdir()
    (path / "part-1.jsonl").write_text(json.dumps(ROWS[1]))
    parquet(path / "part-0.parquet").write_bytes((path / "part-0.parquet").read_bytes())
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[:1]), path / "part-0.parquet")
    (path / "README.md").write_text("a card")
    return path


def content(name: str, data: bytes | str):
    def write(path: Path) -> Path:
        file = path.with_name(name)
        file.write_bytes(data if isinstance(data, bytes) else data.encode())
        return file

    return write


COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}
ZSTD = pyarrow.compress(LINES.encode(), codec="zstd", asbytes=True)
CONTAINERS = {
    "an object a line": [content("a.jsonl", LINES), content("a.ndjson", LINES), content("a.json", LINES.replace("\n", "\r\n"))],
    "objects one after another": [content("a.jsonl", LINES.replace("\n", "")), content("a.json", "\n".join(json.dumps(r, indent=2) for r in ROWS))],
    "one list": [content("a.json", json.dumps(ROWS)), content("a.jsonl", json.dumps(ROWS, indent=1))],
    "a list under a name": [content("a.json", json.dumps({"data": ROWS, "version": 1})), content("a.json", json.dumps({"train": ROWS}))],
    "columns": [
        content("a.json", json.dumps(COLUMNS)),
        content("a.json", json.dumps({n: dict(enumerate(c)) for n, c in COLUMNS.items()})),
        content("a.json", json.dumps({"columns": list(COLUMNS), "index": [0, 1], "data": [list(r.values()) for r in ROWS]})),
    ],
    "Parquet": [lambda path: parquet(path.with_suffix(".parquet"))],
    "Arrow, Feather": [lambda path: feather(path.with_suffix(".feather")), lambda path: saved(path) / "data-00000-of-00001.arrow"],
    "a directory of `datasets.save_to_disk`": [saved, split],
    "a directory of files": [directory],
    "packed": [
        content("a.jsonl.gz", gzip.compress(LINES.encode())), content("a.jsonl.zst", ZSTD + ZSTD[:0]),
        content("a.json.bz2", bz2.compress(json.dumps(ROWS).encode())), content("a.jsonl.xz", lzma.compress(LINES.encode())),
    ],
    "UTF-8, UTF-16, UTF-32": [
        content("a.jsonl", LINES.encode("utf-8-sig")), content("a.json", json.dumps(ROWS).encode("utf-8-sig")),
        content("a.jsonl", LINES.encode("utf-16")), content("a.jsonl", LINES.encode("utf-16-le")), content("a.jsonl", LINES.encode("utf-32")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_rows(tmp_path, name):
    for i, write in enumerate(CONTAINERS[name]):
        (tmp_path / str(i)).mkdir()
        path = write(tmp_path / str(i) / "a")
        found = sources.load_comparisons(path)
        assert [row._asdict() for row in found.rows] == ROWS, path
        assert found.summary() == "2 rows"


def test_every_container_is_in_the_table():
    # In test_containers.py and, of functions, in test_judge.py.
    elsewhere = {
        "a directory of tfds", "`tfds:NAME/SPLIT`", "`hub:OWNER/NAME[@REVISION]/FILES`", "`python:MODULE:FUNCTION`",
    }  # fmt: skip
    assert {row[0] for row in table("container")} == set(CONTAINERS) | elsewhere
