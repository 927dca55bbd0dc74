"""`rmo forecast` on kept results, and what it refuses."""

import json
from pathlib import Path

import pytest

from rmo.cli import main

RESULTS = Path(main.__file__).parents[2] / "configs" / "results"


def call(monkeypatch, *args: str) -> int:
    monkeypatch.setattr("sys.argv", ["rmo", "forecast", *args])
    try:
        main.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_a_forecast_says_peak_stop_and_gold_on_the_way(monkeypatch, capsys, tmp_path):
    tiny = str(RESULTS / "tiny")
    assert call(monkeypatch, tiny, "--rm-params", "40000", "--kl", "2", "50", "--out", str(tmp_path)) == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "forecast.json").read_text())
    assert [row["method"] for row in found["methods"]] == ["bon", "ppo"]
    for row in found["methods"]:
        low, high = row["peak_gold_interval"]
        assert low < row["peak_gold"] < high
        assert f"highest gold {row['peak_gold']:.3g} [{low:.3g}, {high:.3g}]" in said
        assert f"stop at KL   {row['stop_kl']:.3g}" in said
        assert f"gold at KL 2    {row['at'][0]['gold']:.3g}" in said
        assert f"not known: beyond KL {row['range_kl']:.3g}" in said
        assert row["checks"]["params"]["rows"] == 6
    assert "extrapolated" not in said
    assert "<svg" in (tmp_path / "forecast.svg").read_text()
    assert call(monkeypatch, str(RESULTS / "tiny" / "curves.csv"), "--rm-params", "1000000") == 0
    assert "extrapolated by a factor of 10.1 above the largest RM measured (98,689)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("{tiny}", "--rm-params", "0"), "--rm-params is 0: it must be positive"),
        (("{tiny}", "--rm-params", "9", "--kl", "-1"), "--kl is -1.0: it must be positive"),
        (("{tiny}", "--rm-params", "9", "--level", "1"), "--level is 1.0: it must lie between 0 and 1"),
        (
            ("{tiny}", "--rm-params", "9", "--comparisons", "7"),
            "1 number of comparisons measured (36,000): a forecast of 7",
        ),
        (("{tmp}", "--rm-params", "9"), "has no curves.csv"),
        (("{tmp}/none", "--rm-params", "9"), "does not exist: give a run directory"),
        (("{tmp}/own.csv", "--rm-params", "9"), "no curve of an RM whose size is known (rm_params)"),
    ],
)
def test_one_line_says_what_is_wrong(monkeypatch, capsys, tmp_path, args, said):
    (tmp_path / "own.csv").write_text("kl,gold\n0,0\n1,1\n2,1\n3,0\n")
    filled = [arg.format(tiny=RESULTS / "tiny", tmp=tmp_path) for arg in args]
    assert call(monkeypatch, *filled) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith("rmo: ")
    assert err.count("\n") == 1
