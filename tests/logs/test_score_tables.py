"""`rmo bon`: tables of scores that other people made."""

import itertools
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from rmo.cli import main
from rmo.logs import score_tables
from rmo.runtime.files import read_csv, read_json

Q, N = 5, 12


def table(seed=0):
    rng = np.random.default_rng(seed)
    gold_QN = rng.normal(size=(Q, N))
    return gold_QN + rng.normal(size=(Q, N)), gold_QN


def rows(proxy_QN, gold_QN, **meta):
    return [{"prompt": f"q{q}", "draw": j, "proxy": float(proxy_QN[q, j]), "gold": float(gold_QN[q, j]), **meta}
            for q, j in itertools.product(range(Q), range(N))]  # fmt: skip


def write(path, lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_every_format_gives_the_same_tables(tmp_path):
    proxy, gold = table()
    lines = rows(proxy, gold)
    np.random.default_rng(1).shuffle(lines)  # `draw` puts them right
    write(tmp_path / "a.jsonl", lines)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows(proxy, gold)), tmp_path / "a.parquet")
    np.savez(tmp_path / "a.npz", proxy=proxy, gold=gold)
    for suffix in ("jsonl", "parquet", "npz"):
        ((meta, got_proxy, got_gold),) = score_tables.read(tmp_path / f"a.{suffix}")
        assert meta == {}
        np.testing.assert_array_equal(got_proxy, proxy)
        np.testing.assert_array_equal(got_gold, gold)


def test_each_rm_has_a_table_of_its_own(tmp_path):
    (p0, g), (p1, _) = table(0), table(1)
    write(tmp_path / "a.jsonl", rows(p0, g, rm_params=10, seed=1) + rows(p1, g, rm_params=20, seed=0))
    np.savez(tmp_path / "a.npz", proxy=np.stack([p0, p1]), gold=g, rm_params=[10, 20], seed=[1, 0])
    for suffix in ("jsonl", "npz"):
        first, second = score_tables.read(tmp_path / f"a.{suffix}")
        assert [first[0], second[0]] == [{"rm_params": 10, "seed": 1}, {"rm_params": 20, "seed": 0}]
        np.testing.assert_array_equal(first[1], p0)
        np.testing.assert_array_equal(second[1], p1)


def test_the_curve_is_the_estimator_by_enumeration():
    """Every subset of n draws, its best by proxy: the mean gold over all subsets, less the mean of all draws."""
    proxy, gold = table()
    curve = score_tables.curve({}, proxy, gold, max_n=4, points=4)
    for k, n in enumerate(curve.step_or_n.astype(int)):
        subsets = [list(s) for s in itertools.combinations(range(N), n)]
        best = [[gold[q, s][np.argmax(proxy[q, s])] for s in subsets] for q in range(Q)]
        expected = (np.mean(best, axis=1) - gold.mean(axis=1)) / gold.std()
        np.testing.assert_allclose(curve.gold_KQ[k], expected, atol=1e-9)
        assert curve.kl[k] == pytest.approx(np.log(n) - (n - 1) / n)
    assert curve.gold[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("unit", [1e-6, 9, 1e6])
def test_scores_are_calibrated_whatever_their_units(unit):
    proxy, gold = table()
    one, two = score_tables.curve({}, proxy, gold, 4), score_tables.curve({}, unit * (proxy - 4), 0.01 * gold + 7, 4)
    np.testing.assert_allclose(one.gold, two.gold, atol=1e-9)
    np.testing.assert_allclose(one.proxy, two.proxy, rtol=1e-3, atol=1e-6)
    assert one.proxy[-1] > 0.3


def test_command(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    gold = rng.normal(size=(40, 400))
    proxy = gold + rng.normal(size=gold.shape)
    np.savez(tmp_path / "mine.npz", proxy=proxy, gold=gold)
    monkeypatch.setattr("sys.argv", ["rmo", "bon", str(tmp_path / "mine.npz"), "--bootstrap", "50"])
    main.main()
    out = tmp_path / "mine_bon"
    assert "40 prompts x 400 draws" in capsys.readouterr().out
    points = read_csv(out / "curves.csv")
    assert int(points[-1]["step_or_n"]) == 100
    assert float(points[-1]["gold"]) > 1.2
    (group,) = read_json(out / "coefficients.json")["bon"]["groups"]
    assert group["alpha_interval"][0] < group["alpha"] < group["alpha_interval"][1]
    assert group["interval_from"] == "prompts"
    page = (out / "report.html").read_text()
    assert "<svg" in page
    assert "held-out RMSE" in page
    assert (out / "bon.svg").exists()
    sentence = page[page.index("<p>") :].split("</p>")[0]
    assert sentence.startswith("<p>Best-of-n: gold was ")
    assert page.index(group["advice"]["sentence"]) < page.index(sentence)  # what to do comes first
    assert "smallest" not in sentence  # one RM, of unknown size, and no claim was judged
    assert "rises and falls" not in sentence
    monkeypatch.setattr(
        "sys.argv", ["rmo", "bon", str(tmp_path / "mine.npz"), "--points", "2", "--out", str(tmp_path / "no")]
    )
    with pytest.raises(SystemExit):
        main.main()
    assert not (tmp_path / "no").exists()


GOOD = rows(*table())


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.csv", ["prompt,proxy"], "use .jsonl, .parquet or .npz"),
        ("a.jsonl", [{k: v for k, v in row.items() if k != "gold"} for row in GOOD], "no column gold"),
        ("a.jsonl", [*GOOD[:3], "{'oops'", *GOOD[3:]], "line 4: no JSON"),
        ("a.jsonl", [*GOOD[:3], {**GOOD[3], "proxy": "high"}, *GOOD[4:]], "line 4: proxy is 'high'"),
        ("a.jsonl", [*GOOD[:7], {**GOOD[7], "gold": None}, *GOOD[8:]], "line 8: gold is missing, not a finite number"),
        ("a.jsonl", [*GOOD[:7], {**GOOD[7], "prompt": None}, *GOOD[8:]], "line 8 has no prompt"),
        ("a.jsonl", [*GOOD[:7], {**GOOD[7], "draw": None}, *GOOD[8:]], "line 8: draw is missing, not a whole number"),
        ("a.jsonl", [{**row, "seed": 1.5} for row in GOOD], "line 1: seed is 1.5, not a whole number"),
        ("a.jsonl", [*GOOD, *({**row, "seed": 1} for row in GOOD)], "line 61 has seed, and rows before it do not"),
        (
            "a.jsonl",
            [{**row, "seed": s, "prompt": f"{s}{row['prompt']}"} for s in (0, 1) for row in GOOD],
            "do not share prompts and gold",
        ),
        (
            "a.jsonl",
            [{**row, "seed": s, "gold": row["gold"] + s} for s in (0, 1) for row in GOOD],
            "do not share prompts and gold",
        ),
        ("a.jsonl", [""], "a.jsonl"),
        ("a.jsonl", GOOD[:-1], "prompt q4 has 11 draws, prompt q0 12"),
        ("a.jsonl", [*GOOD[:-1], {**GOOD[-1], "draw": 0}], "prompt q4 has one draw twice"),
        ("a.parquet", ["not parquet"], "a.parquet: "),
        ("a.npz", ["not npz"], "a.npz is no npz of numbers"),
    ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path, monkeypatch, capsys, name, lines, message):
    path = write(tmp_path / name, lines)
    monkeypatch.setattr("sys.argv", ["rmo", "bon", str(path)])
    with pytest.raises(SystemExit):
        main.main()
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("rmo: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "a_bon").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"proxy": np.ones((3, 4))}, "a.npz has proxy: it needs"),
        ({"proxy": np.ones((3, 4)), "gold": np.ones((3, 5))}, r"proxy is \(3, 4\), gold \(3, 5\)"),
        ({"proxy": np.ones((2, 3, 4)), "gold": np.ones((3, 4))}, "holds 2 RMs without a difference"),
        ({"proxy": np.ones((2, 3, 4)), "gold": np.ones((3, 4)), "seed": np.ones(3)}, "one for each of the 2 RMs"),
        ({"proxy": np.full((3, 4), np.inf), "gold": np.ones((3, 4))}, "no finite numbers"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(score_tables.TableError, match=message):
        score_tables.read(tmp_path / "a.npz")


def test_tables_that_say_nothing():
    proxy, gold = table()
    with pytest.raises(score_tables.TableError, match="n up to 13"):
        score_tables.curve({}, proxy, gold, 13)
    with pytest.raises(score_tables.TableError, match="gold is the same"):
        score_tables.curve({}, proxy, np.ones_like(gold), 4)
