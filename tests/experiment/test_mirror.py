"""What wandb has of a whole run, read back from what the library wrote."""

import itertools
import json
import re

import numpy as np
import pytest

from rmo.artifacts.curves_csv import COLUMNS
from rmo.artifacts.stages import Proxies
from rmo.methods.method import names
from rmo.runtime.files import read_csv, read_json
from rmo.tracking import dashboard
from tests.helpers import wandb_files
from tests.helpers.smoke import SMOKE


def table_of(smoke, name):
    """The file of a table; of a method's, that of the stage with the most rows: against proxies of two seeds."""
    found = (smoke / "wandb").glob(f"*/files/media/table/{name}_*.json")
    return max(found, key=lambda path: len(read_json(path)["data"]))


def test_wandb_has_everything(smoke):
    """Every stage is a run of its own, with every number of its logs, and what it ended with."""
    runs, stages = wandb_files.read_all(smoke), read_json(smoke / "stages.json")
    assert sorted(runs) == sorted(stage["stage"] for stage in stages)
    (group,) = {said.run.run_group for said in runs.values()}
    assert group.startswith("smoke-")
    for stage in stages:
        said, kind = runs[stage["stage"]], stage["stage"].split("/")[0]
        assert (said.run.job_type, said.run.notes, said.code) == (kind, stage["path"], 0)
        assert list(said.run.tags) == ["smoke", "synthetic", "p16x1", "w8x1", "w16x1", "w24x1"]
        assert said.config["ppo"]["kl_max"] == SMOKE.ppo.kl_max
        assert said.steps == list(range(len(said.steps)))
        for file, prefix in (("metrics", kind), ("speed", "speed")):
            path = smoke / stage["path"] / f"{file}.jsonl"
            for row in map(json.loads, path.read_text().splitlines() if path.exists() else []):
                got = said.rows[row.pop("step")]
                row.pop("of", None)  # steps that are planned, in speed.jsonl
                for name, value in row.items():
                    mean = np.nanmean(value) if np.isfinite(value).any() else np.nan
                    np.testing.assert_allclose(float(got[f"{prefix}/{name}"]), mean, rtol=1e-12)
                    for i, one in enumerate(value if isinstance(value, list) else []):
                        np.testing.assert_equal(float(got[f"{prefix}/{name}/{i}"]), one)
    # Tables and curves.
    table = {name: read_json(table_of(smoke, name)) for name in ("fits/curves", "fits/reward_models", "ppo/curve")}
    rows = read_csv(smoke / "curves.csv")
    assert table["fits/curves"]["columns"] == table["ppo/curve"]["columns"] == list(rows[0])
    assert len(table["fits/curves"]["data"]) == len(rows)
    of_proxy = [row for row in rows if row["method"] == "ppo" and not row["rm_combined"]]
    for got, row in zip(table["ppo/curve"]["data"], of_proxy, strict=True):
        assert got[COLUMNS.index("gold")] == pytest.approx(float(row["gold"]), rel=1e-8)
    for kind, i in itertools.product(("bon", "ppo"), (0, 1)):  # a member's curve is that of curves.csv, in its own rows
        want = [row for row in rows if (row["method"], row["rm_params"], row["seed"]) == (kind, "801", str(i))]
        sent = [row for row in runs[f"{kind}/w8x1-main"].rows.values() if f"{kind}/curve/gold/{i}" in row]
        assert not any(f"{kind}/curve/gold/{1 - i}" in row for row in sent)
        for name, column in ((f"gold/{i}", "gold"), (f"proxy/{i}", "proxy"), ("kl", "kl")):
            expected = [float(row[column]) for row in want]
            assert [row[f"{kind}/curve/{name}"] for row in sent] == pytest.approx(expected, rel=1e-8, abs=1e-8)
        d, kl = (np.array([row[f"{kind}/curve/{name}"] for row in sent]) for name in ("sqrt_kl", "kl"))
        np.testing.assert_allclose(d**2, np.maximum(kl, 0), rtol=1e-12)
    second = Proxies(next(smoke.glob("proxies/w8x1-main-*"))).rows()[1]
    assert runs["proxies/w8x1-main"].summary["proxies/validation_loss/1"] == second.validation_loss
    # Files, and what the dashboard draws.
    (kept,) = runs["report"].artifacts.values()
    assert {"report.html", "results.md", "curves.csv", "coefficients.json", "claims.json", "figures/fig1a.svg"} < set(
        kept
    )
    known = {name for said in runs.values() for row in (*said.rows.values(), said.summary) for name in row}
    drawn = {name for charts in dashboard.line_charts().values() for _, x, y in charts for name in (x, *y)} - {"Step"}
    # Methods that this run does not ask for have charts too.
    absent = tuple(f"{name}/" for name in set(names()) - {stage["stage"].split("/")[0] for stage in stages})
    charts = [(x, pattern) for _, x, pattern in dashboard.curve_charts() if not x.startswith(absent)]
    assert {x.split("/")[0] for x, _ in charts} >= {"bon", "ppo"}
    drawn = {name for name in drawn if not name.startswith(absent)} | {x for x, _ in charts}
    for _, pattern in charts:
        assert any(re.search(pattern, name) for name in known)
    drawn |= {dashboard.SIZE, *(name for _, name in dashboard.POINTS)}
    only_elsewhere = {"utilisation", "peak_memory", "sample", "score", "update"}  # accelerators, large policies
    assert drawn - known <= {f"speed/{name}" for name in only_elsewhere}
