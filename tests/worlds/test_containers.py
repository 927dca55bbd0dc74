"""Whatever rows are kept in gives plain values, or one line that says what the file is and what to do."""

import datetime
import decimal
import gzip
import json
import lzma

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from rmo.worlds import containers, hub_files, sources
from rmo.worlds.containers import SourceError, read
from rmo.worlds.dialogue import Malformed, Message
from tests.worlds.test_what_we_read import LINES, ROWS, saved, split

ROW = json.dumps(ROWS[0], ensure_ascii=False)


def refused(path, *words):
    with pytest.raises(SourceError) as error:
        list(read(path))
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", LINES.replace("\u2028", "").encode("latin-1"), ["line 1: byte 0xdc is no UTF-8", "iconv -f LATIN1 -t UTF-8"]),
        ("a.jsonl", (LINES * 5000).encode() + "{\"prompt\": \"“\"}\n".encode("cp1252"), ["line 10001", "iconv -f WINDOWS-1252"]),
        ("a.json", json.dumps(ROWS, ensure_ascii=False).replace("\u2028", "").encode("latin-1"), ["line 1: byte 0xdc is no UTF-8"]),
        ("a.jsonl", LINES.encode("utf-16")[:-3], ["is no UTF-16", "cut off"]),
        ("a.jsonl.gz", gzip.compress(LINES.encode() * 9, mtime=0)[:-12], ["not whole"]),
        ("a.jsonl.xz", lzma.compress(LINES.encode() * 9)[:-12], ["not whole"]),
        ("a.jsonl.zst", pyarrow.compress(LINES.encode() * 99, codec="zstd", asbytes=True)[:-3], ["not whole"]),
        ("a.jsonl", b"PK\x03\x04 and so on", ["a zip archive: unpack it"]),
        ("a.jsonl", b"PAR1 and so on", ["a Parquet file: call it .parquet"]),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", ["git lfs pull"]),
        ("a.json", b'[{"prompt": "a"},', ["is not JSON"]),
        ("a.json", b'[{"prompt": "a",}]', ["is not JSON"]),
        ("a.json", json.dumps({"train": ROWS, "test": ROWS}).encode(), ["several lists, train, test"]),
        ("a.json", json.dumps({"prompt": ["a", "b"], "chosen": ["c"]}).encode(), ["2 (prompt), 1 (chosen) rows"]),
        ("a.json", json.dumps({"prompt": {"0": "a", "1": "b"}, "chosen": {"0": "c"}}).encode(), ["the same rows"]),
        ("a.json", json.dumps({"columns": ["a"], "data": [[1, 2]]}).encode(), ["as many cells a row"]),
        ("a.parquet", b"no", ["a.parquet"]),
        ("a.parquet.gz", gzip.compress(b"PAR1", mtime=0), ["Parquet packs itself"]),
        ("a.arrow", b"no", ["no whole Arrow file"]),
        ("a.csv", b"prompt,chosen\n", ["use .jsonl"]),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, *words)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"prompt": "a", "prompt": "b"}', "prompt is there twice"),
        ('{"prompt": "a\\ud83d", "chosen": "b"}', "prompt is no text: surrogates not allowed (half of a character)"),
        ('{"prompt": [{"role": "user", "content": "\\udc00"}]}', "prompt is no text"),
        ("[" * 100_000, "nested too deeply"),
        ('{"prompt": "a"} and more', "no JSON"),
        ('"a"', "a str, no object"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path, line, why):
    path = tmp_path / "a.jsonl"
    path.write_text(f"{ROW}\n{line}\n\n{ROW}\n", encoding="utf-8")
    found = list(read(path))
    assert [row for _, row in found if not isinstance(row, Malformed)][-1] == ROWS[0]
    ((where, bad),) = [(where, row) for where, row in found if isinstance(row, Malformed)]
    assert where == f"{path} line 2"
    assert why in str(bad)


def test_a_row_alone_is_no_table(tmp_path):
    """A file of one row whose columns are lists: dialogues, or answers with scores."""
    user, good, bad = {"role": "user", "content": "q"}, {"role": "assistant", "content": "g"}, {"role": "assistant", "content": "b"}  # fmt: skip
    for row in (
        {"chosen": [user, good], "rejected": [user, bad]},
        {"prompt": "q", "completions": [{"response": "g", "score": 2}, {"response": "b", "score": 1}]},
        {"prompt": "q", "answers": ["g", "b"], "gold_scores": [2, 1]},
    ):
        for text in (json.dumps(row), json.dumps(row, indent=1), json.dumps([row])):
            (tmp_path / "a.json").write_text(text)
            assert sources.load_comparisons(tmp_path / "a.json").rows == [("q", "g", "b")]
    (tmp_path / "a.json").write_text(json.dumps({"prompt": [[user], [user]], "chosen": [[good], [good]], "rejected": [[bad], [bad]]}))  # fmt: skip
    assert sources.load_comparisons(tmp_path / "a.json").rows == 2 * [("q", "g", "b")]


def test_types_of_parquet_become_plain_values(tmp_path):
    message = pyarrow.struct([("role", pyarrow.dictionary(pyarrow.int8(), pyarrow.string())), ("content", pyarrow.large_string())])  # fmt: skip
    columns = {
        "prompt": pyarrow.array([[{"role": "user", "content": "q"}]], pyarrow.large_list(message)),
        "chosen": pyarrow.array([b"g\xc3\xa9"], pyarrow.binary()),
        "rejected": pyarrow.array(["b"]).dictionary_encode(),
        "score_chosen": pyarrow.array([decimal.Decimal("8.50")], pyarrow.decimal128(5, 2)),
        "score_rejected": pyarrow.array([2], pyarrow.uint8()),
        "at": pyarrow.array([datetime.datetime(2026, 1, 2, 3)], pyarrow.timestamp("us", tz="UTC")),
        "day": pyarrow.array([datetime.date(2026, 1, 2)]),
        "took": pyarrow.array([datetime.timedelta(seconds=1.5)]),
        "counts": pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        "half": pyarrow.array(np.array([0.5], np.float16)),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    ((_, row),) = read(tmp_path / "a.parquet")
    assert json.loads(json.dumps(row)) == row
    assert row["at"] == "2026-01-02T03:00:00+00:00"
    assert (row["day"], row["took"], row["half"], row["score_chosen"]) == ("2026-01-02", 1.5, 0.5, 8.5)
    assert sources.comparisons_of(row) == [("q", "gé", "b")]
    columns["chosen"] = pyarrow.array([b"\xe9"], pyarrow.binary())
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "b.parquet")
    ((_, row),) = read(tmp_path / "b.parquet")
    assert "chosen holds bytes that are no UTF-8 text" in str(row)


def test_what_datasets_saved(tmp_path):
    both = split(tmp_path / "both")
    saved(both / "test")
    (both / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert len(list(read(both))) == 2 * len(ROWS)
    one = saved(tmp_path / "one")
    (one / "cache-1.arrow").write_bytes(b"left over")  # what state.json does not name does not count
    assert [row for _, row in read(one)] == ROWS
    state = json.loads((one / "state.json").read_text())
    (one / "state.json").write_text(json.dumps({**state, "_indices_data_files": [{"filename": "indices.arrow"}]}))
    refused(one, "flatten_indices()")
    (one / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00001-of-00002.arrow"}]}))
    refused(one, "data-00001-of-00002.arrow is missing")
    (one / "state.json").write_text("{")
    refused(one, "state.json cannot be read")
    arrow = saved(tmp_path / "cut") / "data-00000-of-00001.arrow"
    arrow.write_bytes(arrow.read_bytes()[:-40])
    refused(tmp_path / "cut", "no whole Arrow file")
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "it is empty")
    (tmp_path / "none" / "notes.txt").write_text("x")
    refused(tmp_path / "none", "it holds notes.txt")


def test_dialogues_that_tfds_wrote(tmp_path):
    """tfds gives a sequence of dicts as a dict of sequences: messages are put together again, rows are not taken apart."""
    import tensorflow_datasets as tfds

    text = tfds.features.Text()
    talk = tfds.features.Sequence({"role": text, "content": text})
    user, other = {"role": "user", "content": "q"}, {"role": "user", "content": "r"}
    good, bad = {"role": "assistant", "content": "g"}, {"role": "assistant", "content": "b"}
    rows = {
        "dialogues": {"chosen": [user, bad, other, good], "rejected": [user, bad, other, bad]},
        "prompt": {"prompt": [user, bad, other], "chosen": [good], "rejected": [bad]},
        "words": {"prompt": "r", "chosen": [user, bad, other, good], "rejected": [user, bad, other, bad]},
    }
    features = {
        "dialogues": {"chosen": talk, "rejected": talk},
        "prompt": {"prompt": talk, "chosen": talk, "rejected": talk},
        "words": {"prompt": text, "chosen": talk, "rejected": talk},
    }

    class Dialogues(tfds.core.GeneratorBasedBuilder):
        """Given rows."""

        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path  # tfds wants a package otherwise

        def __init__(self, *, kind, **kwargs):
            self.kind = kind
            super().__init__(**kwargs)

        def _info(self):
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features[self.kind]))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, rows[self.kind]

    prompt = (Message("user", "q"), Message("assistant", "b"), Message("user", "r"))
    for kind, row in rows.items():
        Dialogues(kind=kind, data_dir=str(tmp_path / kind), file_format="array_record").download_and_prepare()
        directory = tmp_path / kind / "dialogues" / "1.0.0"
        assert [found for _, found in read(directory)] == [row]
        assert sources.load_comparisons(directory).rows == [(prompt, "g", "b")]
    for file in directory.glob("*.array_record*"):
        file.unlink()
    refused(directory)


@pytest.mark.parametrize(
    ("name", "repo", "revision", "files"),
    [
        ("owner/set/data/x.jsonl", "owner/set", None, "data/x.jsonl"),
        ("owner/set@main/x.jsonl", "owner/set", "main", "x.jsonl"),
        ("owner/set@refs/convert/parquet/default/train/x.jsonl", "owner/set", "refs/convert/parquet", "default/train/x.jsonl"),
        ("owner/set@refs/pr/3/x.jsonl", "owner/set", "refs/pr/3", "x.jsonl"),
        ("owner/set@refs%2Fpr%2F3/x.jsonl", "owner/set", "refs/pr/3", "x.jsonl"),
        ("owner/set@fix/labels/data/x.jsonl", "owner/set", "fix/labels", "data/x.jsonl"),
        ("owner/set/data/a@b.jsonl", "owner/set", None, "data/a@b.jsonl"),
    ],
)  # fmt: skip
def test_revisions_of_the_hub(tmp_path, monkeypatch, name, repo, revision, files):
    class RevisionNotFoundError(Exception):
        """As huggingface_hub's."""

    (tmp_path / files).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / files).write_text(LINES)

    def download(of, *, revision, **kwargs):
        if (of, revision) != wanted:
            raise RevisionNotFoundError(f"{revision} is no revision")
        return str(tmp_path)

    wanted = (repo, revision)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert [row for _, row in read(f"hub:{name}")] == ROWS
    wanted = (repo, "another")
    with pytest.raises(SourceError, match=r"could not be fetched: .* is no revision"):
        list(read(f"hub:{name}"))


def test_names_of_the_hub_that_say_too_little():
    for name in ("owner/set", "owner/set@main", "owner/set@refs/pr/3", "owner"):
        with pytest.raises(SourceError, match="give OWNER/NAME/FILES"):
            hub_files.fetch(name)


def test_a_large_file_is_read_line_by_line(tmp_path):
    """Not all of it is in memory: what is broken at the end does not keep the first rows back."""
    path = tmp_path / "a.jsonl"
    path.write_bytes((LINES * 20_000).encode() + b"\xff\n")
    rows = containers.read(path)
    assert next(rows)[1] == ROWS[0]
    with pytest.raises(SourceError, match="line 40001: byte 0xff"):
        list(rows)
