"""`rmo bon --methods`: every way to choose among draws, and the rules, on a table that other people made."""

import json

import numpy as np
import pytest

from rmo.cli import main
from rmo.logs import inference_methods, score_tables
from rmo.logs.inference_methods import Asked
from rmo.logs.score_rows import TableError
from rmo.logs.score_tables import ScoreTable
from rmo.runtime.files import read_csv, read_json

ALL = ("best_of_n", "soft_best_of_n", "best_of_poisson", "pessimism", "pessimism_n")


def table(prompts=24, draws=120, seed=0):
    """A proxy that is wrong where it is high."""
    rng = np.random.default_rng(seed)
    proxy = rng.normal(size=(prompts, draws))
    gold = 0.6 * proxy - 0.6 * np.maximum(proxy - 1, 0) ** 2 + 0.5 * rng.normal(size=proxy.shape)
    return ScoreTable({}, 9 * proxy - 4, gold + 7)


def test_the_command(tmp_path, monkeypatch, capsys):
    found = table()
    np.savez(tmp_path / "mine.npz", proxy=found.proxy_QN, gold=found.gold_QN)
    command = ["rmo", "bon", str(tmp_path / "mine.npz"), "--bootstrap", "40", "--methods", *ALL, "--betas", "0.2"]
    monkeypatch.setattr("sys.argv", command)
    main.main()
    out, said = tmp_path / "mine_bon", capsys.readouterr().out
    points = read_csv(out / "curves.csv")
    curves = {(row["method"], row["settings"]) for row in points}
    assert curves == {("bon", ""), ("soft_best_of_n", "temperature=0.1"), ("soft_best_of_n", "temperature=0.3"),
                      ("best_of_poisson", ""), ("pessimism", ""), ("pessimism_n", "beta=0.2")}  # fmt: skip
    for name, settings in curves:
        first = next(row for row in points if (row["method"], row["settings"]) == (name, settings))
        assert [float(first[x]) for x in ("kl", "proxy", "gold")] == pytest.approx([0, 0, 0], abs=1e-9)
    rows = read_csv(out / "rules.csv")
    assert [(row["method"], row["rule"]) for row in rows] == [
        ("best_of_n", "HedgeTune"), ("best_of_n", "fitted peak"), ("best_of_n", "lower end of fitted peak"),
        ("best_of_n", "largest n"), ("soft_best_of_n", "HedgeTune"), ("best_of_poisson", "HedgeTune"),
        ("pessimism", "HedgeTune"),
    ]  # fmt: skip
    assert len(read_json(out / "rules.json")) == len(rows)
    tuned, largest = float(rows[0]["regret"]), float(rows[3]["regret"])
    assert tuned < largest
    assert "rules: chosen on 12 prompts, judged on 12 others, gold in its sd:" in said
    assert f"best-of-n, HedgeTune: n = {float(rows[0]['chosen']):.3g}, gold " in said
    assert "best-of-n, HedgeTune: n = " in (out / "report.html").read_text()
    assert (out / "pessimism.svg").exists()
    parts, bon = read_csv(out / "goodhart.csv"), [row for row in points if row["method"] == "bon"]
    for part, point in zip(parts, bon, strict=True):
        gold = float(part["regressional"]) + float(part["extremal"])
        assert gold == pytest.approx(float(part["gold"]), abs=1e-8)
        assert gold == pytest.approx(float(point["gold"]), abs=1e-8)
    assert float(parts[-1]["extremal"]) < -0.2  # it was made to bend
    bent = read_csv(out / "quantiles.csv")
    assert float(bent[-1]["gold"]) < max(float(row["gold"]) for row in bent)
    assert abs(float(read_csv(out / "hill.csv")[0]["hill"])) < 0.5
    assert "<svg" in (out / "goodhart.svg").read_text()
    assert f"best-of-n: at n = 30 a straight line in the proxy gives {float(parts[-1]['regressional']):.3g}" in said


def test_nothing_changes_where_nothing_is_asked_for(tmp_path, monkeypatch, capsys):
    found = table()
    (curve,) = inference_methods.curves(found, Asked())
    expected = score_tables.curve(*found, max_n=30)
    np.testing.assert_array_equal(curve.gold_KQ, expected.gold_KQ)
    np.testing.assert_array_equal(curve.kl, expected.kl)
    np.savez(tmp_path / "a.npz", proxy=found.proxy_QN, gold=found.gold_QN)
    monkeypatch.setattr("sys.argv", ["rmo", "bon", str(tmp_path / "a.npz"), "--bootstrap", "20"])
    main.main()
    assert not (tmp_path / "a_bon" / "rules.csv").exists()
    assert "rules" not in capsys.readouterr().out


def test_units_and_the_order_of_draws_do_not_matter():
    """Scores are calibrated; best-of-Poisson and pessimism rest on no random numbers at all."""
    one = table()
    order = np.random.default_rng(1).permutation(120)
    two = ScoreTable({}, 1e3 * one.proxy_QN[:, order], 0.01 * one.gold_QN[:, order] - 3)
    asked = Asked(("best_of_poisson", "pessimism"))
    for a, b in zip(*(inference_methods.curves(t, asked) for t in (one, two)), strict=True):
        np.testing.assert_allclose(a.gold, b.gold, atol=1e-3)
        np.testing.assert_allclose(a.kl, b.kl, atol=1e-3)


def test_each_rm_has_rules_of_its_own(tmp_path, monkeypatch):
    one, two = table(seed=0), table(seed=0)
    rows = [
        {"prompt": f"q{q}", "draw": j, "rm": rm, "proxy": float(t.proxy_QN[q, j] * sign), "gold": float(t.gold_QN[q, j])}
        for rm, t, sign in (("good", one, 1), ("bad", two, -1)) for q in range(24) for j in range(120)
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr("sys.argv", ["rmo", "bon", str(tmp_path / "a.jsonl"), "--bootstrap", "20", "--rules"])
    main.main()
    found = {(r["rm"], r["rule"]): r for r in read_csv(tmp_path / "a_bon" / "rules.csv")}
    assert found["bad", "HedgeTune"]["found"] == "start"
    assert "do not optimise against this proxy" in found["bad", "HedgeTune"]["why"]
    assert found["good", "HedgeTune"]["found"] == "root"


def test_what_cannot_work_is_one_line():
    few = ScoreTable({}, *(x[:3] for x in table()[1:]))
    with pytest.raises(TableError, match="3 prompts: choosing on half"):
        inference_methods.rules(few, Asked(), 20, 0.95)
    small = ScoreTable({}, *(x[:, :8] for x in table()[1:]))
    with pytest.raises(TableError, match="8 draws: best-of-Poisson needs"):
        inference_methods.curves(small, Asked(("best_of_poisson",)))
    for asked, message in [(Asked(("soft_best_of_n",), temperatures=(0.0,)), "--temperatures 0: each must be 0.01"),
                           (Asked(("pessimism_n",), betas=()), "--betas"),
                           (Asked(("pessimism_n",), betas=(0.1, -1.0)), "--betas 0.1 -1: each must be more than 0")]:  # fmt: skip
        with pytest.raises(TableError, match=message):
            inference_methods.curves(table(), asked)
    for draws in (4, 6, 12):  # the smallest tables that best-of-n takes
        tiny = ScoreTable({}, *(x[:4, :draws] for x in table()[1:]))
        names = ("best_of_n", "soft_best_of_n", "pessimism", "pessimism_n")
        for curve in inference_methods.curves(tiny, Asked(names)):
            assert np.isfinite([curve.kl, curve.gold, curve.proxy]).all()
        assert np.isfinite([row["gold"] for row in inference_methods.rules(tiny, Asked(names), 20, 0.95)]).all()
