"""Prompts and comparisons from files of the common shapes, and what becomes of bad rows."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from rmo.worlds import sources
from rmo.worlds.sources import Comparison, load_comparisons, load_prompts

HH = {"chosen": "\n\nHuman: Hi.\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: Because.",
      "rejected": "\n\nHuman: Hi.\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: No."}  # fmt: skip
SHAPES = {
    "texts": ({"prompt": "Why?", "chosen": "Because.", "rejected": "No."}, [Comparison("Why?", "Because.", "No.")]),
    "messages": (
        {"prompt": "Why?", **{name: [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": text}]
                              for name, text in (("chosen", "Because."), ("rejected", "No."))}},
        [Comparison("Why?", "Because.", "No.")],
    ),
    "dialogues": (HH, [Comparison("\n\nHuman: Hi.\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant:", "Because.", "No.")]),
    "summaries": (
        {"info": {"subreddit": "cats", "title": "Tom", "post": "Tom sat."}, "choice": 1, "summaries": [{"text": " sat"}, {"text": " Tom sat"}]},
        [Comparison("SUBREDDIT: r/cats\nTITLE: Tom\nPOST: Tom sat.\nTL;DR:", "Tom sat", "sat")],
    ),
    "completions": (
        {"instruction": "Why?", "completions": [{"response": "a", "overall_score": 3}, {"response": "b", "overall_score": 5.5}, {"response": "c", "overall_score": 3}]},
        [Comparison("Why?", "b", "a"), Comparison("Why?", "b", "c")],
    ),
    "answers": (
        {"instruction": "Why?", "answers": ["a", "b", "c", "d", "e"], "gold_scores": [1.0, 2.0, 5.0, 4.0, 9.0]},
        [Comparison("Why?", "b", "a"), Comparison("Why?", "c", "d")],
    ),
}  # fmt: skip


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_in_every_container(tmp_path, name):
    row, expected = SHAPES[name]
    jsonl = write(tmp_path / "a.jsonl", [row, row])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row, row]), tmp_path / "a.parquet")
    for path in (jsonl, tmp_path / "a.parquet"):
        loaded = load_comparisons(path)
        assert loaded.rows == 2 * expected
        assert loaded.dropped == []
    assert load_prompts(jsonl).rows == [row.get("prompt", row.get("instruction", expected[0].prompt))]


def test_array_record_through_tfds(tmp_path):
    """A dataset that anybody wrote with tfds, nested features included."""
    import tensorflow_datasets as tfds

    rows = {"pairs": [SHAPES["texts"][0]], "scored": [SHAPES["completions"][0]]}
    text = tfds.features.Text()
    features = {
        "pairs": {"prompt": text, "chosen": text, "rejected": text},
        "scored": {"instruction": text, "completions": tfds.features.Sequence({"response": text, "overall_score": np.float32})},
    }  # fmt: skip

    class Table(tfds.core.GeneratorBasedBuilder):
        """Given rows."""

        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path  # tfds wants a package otherwise

        def __init__(self, *, kind, **kwargs):
            self.kind = kind
            super().__init__(**kwargs)

        def _info(self):
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features[self.kind]))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(), "test": self._generate_examples()}

        def _generate_examples(self):
            yield from enumerate(rows[self.kind])

    for kind in rows:
        Table(kind=kind, data_dir=str(tmp_path / kind), file_format="array_record").download_and_prepare()
        loaded = load_comparisons(tmp_path / kind / "table" / "1.0.0")
        assert loaded.rows == 2 * SHAPES["texts" if kind == "pairs" else "completions"][1]


def test_other_prompts(tmp_path):
    rows = [{"question": "Why?"}, {"text": "Who?"}, {"instruction": "Sum up.", "input": "A post."}, {"prompt": "Why?"}]
    assert load_prompts(write(tmp_path / "p.jsonl", rows)).rows == ["Why?", "Who?", "Sum up.\nA post."]


BAD = [
    ("{", "line 2: no JSON"),
    ("[1]", "line 2: a list, no object"),
    ({"foo": 1}, "line 2: fields foo: known are"),
    ({"prompt": "a", "chosen": "", "rejected": "b"}, "chosen is '', no text"),
    ({"prompt": "a", "chosen": 3, "rejected": "b"}, "chosen is 3"),
    ({"chosen": "no marks", "rejected": "at all"}, "chosen is no transcript of Human and Assistant turns, and there is no prompt"),
    ({**HH, "rejected": "\n\nHuman: Other.\n\nAssistant: No."}, "do not part"),
    ({**SHAPES["summaries"][0], "choice": 2}, "choice 2"),
    ({**SHAPES["completions"][0], "completions": [{"response": "a", "quality": "good"}, {"response": "b"}]}, "completions have no score"),
    ({"prompt": "a", "answers": ["b"], "scores": [1, 2]}, "lists of one length"),
    ({"info": 3, "summaries": [], "choice": 0}, "summaries: AttributeError"),
    ({"info": None, "summaries": [], "choice": 0}, "fields info, summaries, choice (info empty): known are"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), BAD)
def test_bad_rows_are_named_and_counted(tmp_path, row, message):
    good = SHAPES["texts"][0]
    loaded = load_comparisons(write(tmp_path / "a.jsonl", [good, row, *[good] * 98]), tolerance=0.02)
    assert len(loaded.rows) == 99
    ((where, why),) = loaded.dropped
    assert message in f"{where.removeprefix(str(tmp_path / 'a.jsonl') + ' ')}: {why}"
    assert "1 rows dropped" in loaded.summary()
    with pytest.raises(sources.SourceError, match=r"1 of 2 rows, more than 1%, cannot be used; the first is line 2"):
        load_comparisons(write(tmp_path / "b.jsonl", [good, row]))


def test_ties_are_no_preference_and_counted(tmp_path):
    ties = [{"prompt": "a", "chosen": "b", "rejected": " b"}, {"prompt": "a", "answers": ["x", "y"], "scores": [1, 1]}]
    loaded = load_comparisons(write(tmp_path / "a.jsonl", [*ties, SHAPES["texts"][0]]))
    assert loaded.rows == SHAPES["texts"][1]
    assert loaded.dropped == []
    assert loaded.summary() == "1 rows; left out: 2 ties"
    with pytest.raises(sources.SourceError, match="nothing can be used of its 2 rows: 2 ties"):
        load_comparisons(write(tmp_path / "b.jsonl", ties))


def test_bad_sources(tmp_path):
    for source, message in [
        (tmp_path / "none.jsonl", "no such file"),
        (write(tmp_path / "a.txt", ["x"]), "use .jsonl"),
        (write(tmp_path / "a.jsonl", [""]), "is empty"),
        (write(tmp_path / "a.parquet", ["x"]), "a.parquet: "),
        (tmp_path, str(tmp_path)),
        ("tfds:no_such_dataset/train", "tfds:no_such_dataset"),
    ]:
        with pytest.raises(sources.SourceError, match=message) as error:
            load_comparisons(source)
        assert "\n" not in str(error.value)
