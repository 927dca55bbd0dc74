"""Tables that are written are read back as they were."""

from rmo.runtime.files import read_csv, write_csv


def test_texts_with_commas_quotes_and_line_ends(tmp_path):
    texts = ["plain", "a, b", 'say "no"', "two\nlines", "", "=x"]
    write_csv(tmp_path / "a.csv", ["text", "x"], [{"text": text, "x": i} for i, text in enumerate(texts)])
    assert [row["text"] for row in read_csv(tmp_path / "a.csv")] == texts
    assert [row["x"] for row in read_csv(tmp_path / "a.csv")] == [str(i) for i in range(6)]


def test_what_needs_no_quotes_has_none(tmp_path):
    write_csv(tmp_path / "a.csv", ["a", "b", "c"], [{"a": 1 / 3, "b": None, "c": "epochs=4 dropout=0.1"}, {"a": 2}])
    assert (tmp_path / "a.csv").read_text() == "a,b,c\n0.333333333,,epochs=4 dropout=0.1\n2,,\n"
