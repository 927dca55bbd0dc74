"""The summary over worlds, from made-up run directories."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rmo.analysis.scaling import summarise as fit
from rmo.artifacts.run_files import RunFiles
from rmo.config import to_json
from rmo.config.replicates import replicates
from rmo.report import compare, worlds
from rmo.runtime.files import RunError, read_json
from tests.helpers.made_sweeps import made_sweep
from tests.helpers.smoke import SMOKE, copied

THREE = replicates(replace(SMOKE, worlds=(1, 2, 10)))


def verdict(name: str, value: float | None, half: float, threshold: tuple, seeds: int = 3) -> dict:
    interval = None if value is None else [value - half, value + half]
    return {
        "claim": name, "text": f"the text of {name}", "measured": "what is measured", "statistic": value, "interval": interval,
        "threshold": list(threshold), "verdict": "undecided", "why": "" if interval else "this run has none", "n_runs": seeds,
        "seeds": seeds, "figure": "fig1a",
    }  # fmt: skip


def claims_of(world: int) -> list[dict]:
    """A statement that holds, one that fails, one that is left open, one without data, one with too few seeds."""
    shift = (world - 1) * 0.01
    return [
        verdict("C1", 1 + shift, 0.2, (0, None)),
        verdict("C2", 1 + shift, 0.2, (None, 0.5)),
        verdict("C3", 0.1 + shift, 0.5, (0, None)),
        verdict("C4", None, 0, (0, None)),
        verdict("C5", 1 + shift, 0.2, (0, None), seeds=2),
        verdict("C6", 1.0 if world == 0 else None, 0.2, (0, None)),
    ]


@pytest.fixture
def root(made, tmp_path):
    """Three finished worlds, to be changed."""
    return copied(made, tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three finished worlds."""
    top = tmp_path_factory.mktemp("worlds") / "smoke"
    for i, (where, e) in enumerate(THREE.items()):
        run = RunFiles(top.parent / where)
        groups = made_sweep(np.random.default_rng(i), "bon", 5, 2, prompts=8).groups
        curves = [c for g in groups for c in g.curves]
        run.root.mkdir(parents=True)
        run.publish(e, [{"stage": "gold", "state": "done", "seconds": 1.0, "path": "gold-0123456789"}])
        run.fits.write_curves(curves)
        run.fits.write("coefficients", fit(curves, draws=20, rank_draws=3))
        run.fits.write("claims", claims_of(i))
        run.fits.write("policies", [{"policy_params": 1, "gold_per_prompt": [0.0]}])
    return top


def test_highest_gold_of_every_world_is_shown(root):
    worlds.write(root)
    rows = read_json(root / "worlds.json")["highest"]
    assert [row["world"] for row in rows] == ["world-1"] * 5 + ["world-2"] * 5 + ["world-10"] * 5
    for row in rows:
        curves = [c for c in RunFiles(root / row["world"]).fits.curves() if c.id.rm_params == row["rm_params"]]
        assert len(curves) == 2
        gold, kl = np.mean([c.gold for c in curves], axis=0), curves[0].kl
        top = int(gold.argmax())
        assert [row["gold"], row["kl"]] == pytest.approx([gold[top], kl[top]], abs=1e-6)
        assert [row["end_gold"], row["end_kl"]] == pytest.approx([gold[-1], kl[-1]], abs=1e-6)
    text = (root / "worlds.md").read_text()
    first = rows[0]
    assert "| RM parameters | best-of-n, world-1 | best-of-n, world-2 | best-of-n, world-10 |" in text
    assert f"| {first['rm_params']:,} | {first['gold']:.2f} ({first['kl']:.1f})" in text


def test_every_statement_is_pooled_and_judged(root):
    page = worlds.write(root)
    assert page == root / "worlds.html"
    summary = read_json(root / "worlds.json")
    assert summary["worlds"] == ["world-1", "world-2", "world-10"]
    by = {s["claim"]: s for s in summary["statements"]}
    assert {name: s["verdict"] for name, s in by.items()} == {
        "C1": "holds", "C2": "fails", "C3": "undecided", "C4": "undecided", "C5": "undecided", "C6": "undecided",
    }  # fmt: skip
    assert (by["C1"]["n_worlds"], by["C1"]["seeds"]) == (3, 3)
    assert by["C1"]["statistic"] == pytest.approx(1)
    assert by["C1"]["by_world"]["world-10"]["statistic"] == pytest.approx(1.01)
    assert "would decide it" not in by["C1"]["why"]
    assert by["C4"]["why"] == "this run has none"
    assert by["C5"]["why"] == "2 RM seeds in a world; a verdict needs 3"
    assert by["C6"]["why"].startswith("one world alone gives it")
    left = summary["left_out"]["bon"]
    assert left["cases"] == 15
    assert 0 <= left["gold_inside"] <= 15
    text = (root / "worlds.md").read_text()
    assert "Of 6 statements in 3 worlds 1 hold, 1 fail and 4 are undecided." in text
    assert f"highest gold in its interval in {left['gold_inside']} of 15 cases" in text
    assert text.count("\n| C") == 6
    html = page.read_text()
    assert "world-10/report.html" in html
    assert (root / "compare.html").exists()


def test_what_would_decide_a_statement_is_said():
    rows = {f"world-{i}": verdict("C3", 0.4 + 0.3 * i, 0.3, (0, None)) for i in (-1, 0, 1)}
    s = worlds.statement(rows, worlds.ALONE, 0.95)
    assert s["verdict"] == s["verdict_alone"] == "undecided"
    assert s["interval"] == s["interval_alone"]
    assert s["why"] == "about 5 worlds would decide it"


def test_a_stated_error_counts_before_that_of_the_interval():
    row = verdict("C1", 1.0, 0.5, (0, None))
    assert worlds.error_of(row, 0.95) == pytest.approx(0.5 / 1.96, rel=1e-4)
    assert worlds.error_of(row | {"df": 4}, 0.95) == pytest.approx(0.5 / 2.776, rel=1e-3)
    assert worlds.error_of(row | {"df": 4, "se": 0.07}, 0.95) == 0.07


def test_worlds_of_another_config_are_not_pooled(root, monkeypatch):
    monkeypatch.setattr(compare, "write", lambda roots, out: out)
    path = root / "world-2" / "experiment.json"
    changed = json.loads(path.read_text())
    changed["bon"]["draws"] += 1
    path.write_text(json.dumps(changed))
    with pytest.raises(RunError, match="world-2 had another config than world-1: run or remove them"):
        worlds.write(root)


def test_one_finished_world_is_no_summary(root):
    for name in ("world-2", "world-10"):
        (root / name / "coefficients.json").unlink()
    assert list(worlds.finished_worlds(root)) == ["world-1"]
    with pytest.raises(RunError, match="holds 1 finished worlds: a summary needs two"):
        worlds.write(root)


def test_only_seeds_and_names_may_differ_between_worlds():
    one, two = (worlds.comparable(to_json(e)) for e in list(THREE.values())[:2])
    assert one == two
    other = replace(next(iter(THREE.values())), world=replace(SMOKE.world, vocab=30))
    assert worlds.comparable(to_json(other)) != one


def test_the_report_command_draws_the_summary(root, monkeypatch, capsys):
    from rmo.cli.commands import report

    monkeypatch.setattr(compare, "write", lambda roots, out: out)
    report.main([str(root)])
    assert Path(capsys.readouterr().out.strip()) == root / "worlds.html"
