"""`rmo bon` on the tables people have: sorted by anything, several RMs as rows, lists, dialogues as prompts, few draws.

Wanted values are those of the plain table of the same scores, or computed by hand.
"""

import itertools
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from rmo.cli import main
from rmo.logs import score_tables
from rmo.runtime.files import read_csv

Q, N = 40, 64


def made(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=(Q, N))
    return 3 * (gold + rng.normal(size=(Q, N))), gold


PROXY, GOLD = made()


def as_rows(proxy=PROXY, gold=GOLD, **more):
    return [{"prompt": f"q{q:02d}", "proxy": float(proxy[q, n]), "gold": float(gold[q, n]), **more}
            for q, n in itertools.product(*map(range, gold.shape))]  # fmt: skip


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def curve_of(path, max_n=16):
    (table,) = score_tables.read(path)
    return score_tables.curve(*table, max_n=max_n)


PLAIN = score_tables.curve({}, PROXY, GOLD, 16)


def same(curve, want=PLAIN):
    np.testing.assert_allclose(curve.gold_KQ, want.gold_KQ, atol=1e-9)
    np.testing.assert_allclose(curve.proxy_KQ, want.proxy_KQ, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("key", ["gold", "proxy"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_sorted_file_gives_the_curve_of_an_unsorted_one(tmp_path, key, sign):
    same(curve_of(write(tmp_path / "t.jsonl", sorted(as_rows(), key=lambda row: (row["prompt"], sign * row[key])))))


def test_a_draw_that_is_a_rank_changes_nothing(tmp_path):
    rows = [row for q in range(Q) for row in as_rows()[q * N : (q + 1) * N]]
    order = np.argsort(-PROXY, axis=1)
    ranked = [{**rows[q * N + n], "draw": k} for q in range(Q) for k, n in enumerate(order[q])]
    same(curve_of(write(tmp_path / "t.jsonl", ranked)))


def test_the_scale_is_that_of_all_pairs():
    """By hand: one prompt's three draws and another's make three differences each; the best scale of the proxy is the
    root of the derivative of the mean cross-entropy, found here by bisection."""
    proxy, gold = np.array([[0.0, 1.0, 5.0], [2.0, 0.0, 1.0]]), np.array([[0.0, 2.0, 1.0], [1.0, -1.0, 0.5]])
    pairs = [(proxy[q, i] - proxy[q, j], gold[q, i] - gold[q, j]) for q in (0, 1) for i, j in ((0, 1), (0, 2), (1, 2))]

    def slope(s):
        return sum((1 / (1 + np.exp(-s * p)) - 1 / (1 + np.exp(-g))) * p for p, g in pairs)

    low, high = 0.0, 10.0
    for _ in range(60):
        low, high = ((low + high) / 2, high) if slope((low + high) / 2) < 0 else (low, (low + high) / 2)
    assert score_tables.proxy_scale(proxy, gold) == pytest.approx(low, rel=1e-4)


def test_ties_of_the_proxy_are_broken_by_chance_not_by_order():
    """Two draws of four tie for the best: of n = 4 gold is the mean of theirs, (5 - 3) / 2, in either order."""
    proxy = np.array([[7.0, 7.0, 0.0, 1.0], [3.0, 2.0, 1.0, 0.0]])
    gold = np.array([[5.0, -3.0, 0.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
    swapped = [0, 1], [[1, 0, 2, 3], [0, 1, 2, 3]]
    a = score_tables.curve({}, proxy, gold, 4)
    order = np.array(swapped[1])
    b = score_tables.curve({}, np.take_along_axis(proxy, order, 1), np.take_along_axis(gold, order, 1), 4)
    same(b, a)
    start = gold[0].mean()
    assert a.gold_KQ[-1, 0] == pytest.approx(((5 - 3) / 2 - start) / gold.std())


def test_two_rms_as_rows_are_told_apart_by_name(tmp_path):
    other = np.random.default_rng(5).normal(size=(Q, N))
    # Each RM's rows are sorted by its own score, so that gold is in another order in each.
    rows = [*as_rows(rm="good one"), *sorted(as_rows(other, rm="noise"), key=lambda row: row["proxy"])]
    tables = score_tables.read(write(tmp_path / "t.jsonl", rows))
    assert [table.meta for table in tables] == [{"rm": "good one"}, {"rm": "noise"}]
    good, noise = (score_tables.curve(*table, max_n=16) for table in tables)
    same(good)
    same(noise, score_tables.curve({}, other, GOLD, 16))
    assert str(good.id.rm_recipe) == "rm=good-one"
    assert good.id != noise.id


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*as_rows(subset="a"), *as_rows(gold=GOLD + 5, subset="b")], r"subset \(a and b\) parts every prompt's draws alike"),
        ([*as_rows(judge="x"), *as_rows(-PROXY, judge="y")], r"judge \(x and y\) parts every prompt's draws alike: call it rm"),
        ([*as_rows(judge="x"), *as_rows(PROXY[:, :8], GOLD[:, :8], judge="y")], r"judge \(x and y\) parts every prompt's draws alike"),
        ([*as_rows(), *as_rows(-PROXY)], "every gold score is there 2 times: if 2 RMs scored the draws, name them in a column rm"),
        ([*as_rows(rm="x"), *as_rows(gold=GOLD + 1, rm="y")], "do not share prompts and gold"),
        ([*as_rows(rm="x"), *as_rows(rm=None)], "line 2561: rm is missing, no name"),
        ([*as_rows(), *as_rows(rm="y")], "line 2561 has rm, and rows before it do not"),
        ([{"prompt": "a", "proxy": [1, 2], "gold": [1]}], "line 1: proxy has 2, gold has 1 draws"),
        ([{"prompt": "a", "proxy": [1, 2], "gold": 1}], "line 1: proxy has 2, gold has 0 draws"),
        ([{"prompt": "a", "proxy": [1, "x"], "gold": [1, 2]}], "line 1: proxy is 'x', not a finite number"),
        ([{"prompt": "a", "proxy": [[1], [2]], "gold": [1, 2]}], r"line 1: proxy is \[1\], not a finite number"),
        ([{"prompt": "a", "proxy": float("nan"), "gold": 1}], "line 1: proxy is nan, not a finite number"),
        ([{"prompt": None, "proxy": 1, "gold": 1}], "line 1 has no prompt"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_refused(tmp_path, rows, message):
    with pytest.raises(score_tables.TableError, match=message):
        score_tables.read(write(tmp_path / "t.jsonl", rows))


def test_a_column_of_texts_or_flags_is_no_name(tmp_path):
    rows = [{**row, "response": f"text {i}", "ended": i % 3 == 0} for i, row in enumerate(as_rows())]
    same(curve_of(write(tmp_path / "t.jsonl", rows)))


def test_a_seed_of_each_draw_is_no_rm(tmp_path, capsys):
    rows = [{**row, "seed": 1000 + i % N} for i, row in enumerate(as_rows())]
    same(curve_of(write(tmp_path / "t.jsonl", rows)))
    assert "taken for the draw's" in capsys.readouterr().err
    same(
        curve_of(
            write(tmp_path / "u.jsonl", [{**row, "seed": 7 * i, "draw": i % N} for i, row in enumerate(as_rows())])
        )
    )


@pytest.mark.parametrize("form", ["lists", "json", "parquet"])
def test_lists_of_scores(tmp_path, form):
    rows = [{"prompt": f"q{q:02d}", "proxy": PROXY[q].tolist(), "gold": GOLD[q].tolist()} for q in range(Q)]
    if form == "json":
        rows = [{**row, "proxy": json.dumps(row["proxy"]), "gold": json.dumps(row["gold"])} for row in rows]
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    else:
        write(tmp_path / "t.jsonl", rows)
    same(curve_of(tmp_path / ("t.parquet" if form == "parquet" else "t.jsonl")))


def test_dialogues_are_prompts(tmp_path):
    ask = lambda row: [{"role": "user", "content": row["prompt"]}]
    rows = [{**row, "prompt": ask(row)} for row in as_rows()]
    same(curve_of(write(tmp_path / "t.jsonl", rows)))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    same(curve_of(tmp_path / "t.parquet"))


@pytest.mark.parametrize("draws", [4, 7, 15])
def test_four_to_fifteen_draws_make_a_curve(tmp_path, monkeypatch, capsys, draws):
    path = write(tmp_path / "t.jsonl", as_rows(PROXY[:, :draws], GOLD[:, :draws]))
    monkeypatch.setattr("sys.argv", ["rmo", "bon", str(path), "--bootstrap", "10"])
    main.main()
    points = read_csv(tmp_path / "t_bon" / "curves.csv")
    assert [int(point["step_or_n"]) for point in points] == [1, 2, 3, 4]
    want = score_tables.curve({}, PROXY[:, :draws], GOLD[:, :draws], 4)
    assert [float(point["gold"]) for point in points] == pytest.approx(list(want.gold), abs=1e-6)
    assert f"40 prompts x {draws} draws" in capsys.readouterr().out


def test_three_draws_are_too_few(tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "t.jsonl", as_rows(PROXY[:, :3], GOLD[:, :3]))
    monkeypatch.setattr("sys.argv", ["rmo", "bon", str(path)])
    with pytest.raises(SystemExit):
        main.main()
    error = capsys.readouterr().err
    assert "40 prompts with 3 draws" in error
    assert error.count("\n") == 1
