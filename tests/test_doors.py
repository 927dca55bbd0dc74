"""A method, a reward, a claim and a figure in one file of a test's own go through a whole run and are found everywhere.

(A toy world does so in tests/worlds/test_world.py.)
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmo.runtime.files import read_csv
from tests.helpers.flags import FAST
from tests.helpers.wandb_files import read_all

ROOT = Path(__file__).parents[1]
TOYS = ROOT / "tests" / "helpers" / "toys.py"
CONFIG = f'''
import sys
from dataclasses import replace
from rmo.config import Combined, GoldAsProxy
from rmo.config import checks


def experiment():
    RandomTie = sys.modules["rmo_plugin_toys"].RandomTie
    smoke = checks.load("{ROOT}/configs/smoke.py")
    sweep = replace(smoke.proxies.sweeps[0], combined=(Combined("middle", "midrange"),))
    return replace(
        smoke, name="toys", methods=(RandomTie(),), ppo=replace(smoke.ppo, against=()), gold_as_proxy=GoldAsProxy(ppo_seeds=0),
        proxies=replace(smoke.proxies, sizes=smoke.proxies.sizes[:2], sweeps=(sweep,)),
        fits=replace(smoke.fits, bootstrap=20),
    )
'''


def cli(*args: object, where: Path) -> str:
    code = "from rmo.cli.main import main; main()"
    env = os.environ | {
        "RMO_PLUGINS": str(TOYS), "XLA_FLAGS": FAST, "JAX_PLATFORMS": "cpu", "WANDB_MODE": "offline",
        "PYTHONPATH": str(ROOT), "COLUMNS": "160", "LINES": "60",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, cwd=where, env=env
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> Path:
    """The run directory of the toy experiment."""
    where = tmp_path_factory.mktemp("toys")
    config = where / "toys_config.py"
    config.write_text(CONFIG)
    cli("run", config, "--runs", where, "--wandb", "toys", where=where)
    return where / "toys"


def test_toy_method_has_curves_and_fits(toys):
    rows = read_csv(toys / "curves.csv")
    mine = [row for row in rows if row["method"] == "random_tie"]
    assert {row["rm_params"] for row in mine} == {row["rm_params"] for row in rows if row["rm_combined"] != "gold"}
    assert {row["step_or_n"] for row in mine} == {"1", "2", "3", "5", "7", "11", "16"}
    assert all(abs(float(row["gold"])) < 1e-9 for row in mine if row["step_or_n"] == "1")
    part = json.loads((toys / "coefficients.json").read_text())["random_tie"]
    assert part["form"] == "d(a - b d)"
    assert len(part["groups"]) == 4  # two sizes, single and combined


def test_toy_method_and_figure_reach_the_page(toys):
    page = (toys / "report.html").read_text()
    assert "best-of-n, ties broken by chance" in page
    assert "curves_random_tie-plot" in page
    assert (toys / "figures" / "curves_random_tie.svg").exists()
    assert "A toy figure" in page
    assert (toys / "figures" / "toy_figure.svg").exists()
    assert "random tie: highest gold (KL)" in (toys / "results.md").read_text()


def test_toy_method_is_watched_and_listed(toys):
    watched = cli("watch", toys, "--once", where=toys.parent)
    assert "random tie top" in watched
    listed = cli("list", toys.parent / "toys_config.py", "--runs", toys.parent, where=toys.parent)
    assert "random_tie/w8x1-main" in listed
    assert "other code" not in listed
    drawn = cli("report", toys, where=toys.parent)  # without the config, by RMO_PLUGINS alone
    assert drawn.strip().endswith("report.html")


def test_toy_method_is_mirrored_to_wandb(toys):
    mirrored = read_all(toys)["random_tie/w8x1-main"]
    logged = {name for row in mirrored.rows.values() for name in row}
    for table in ("random_tie/curve/_type", "random_tie/members/_type"):
        assert table in logged, sorted(logged)
    assert {"random_tie/curve/gold/0", "random_tie/curve/sqrt_kl"} <= logged  # and rows for charts


def test_toy_claim_is_judged(toys):
    claims = {row["claim"]: row for row in json.loads((toys / "claims.json").read_text())}
    assert claims["C901"]["statistic"] is not None
    assert claims["C901"]["verdict"] == "undecided"  # two seeds
    assert "Ties are broken by chance" in (toys / "report.html").read_text()


def test_toy_reward_is_a_member_of_every_method(toys):
    rows = read_csv(toys / "curves.csv")
    for method, gold in (("bon", {"gold"}), ("random_tie", set())):  # the toy does not ask for gold's own row
        combined = {row["rm_combined"] for row in rows if row["method"] == method}
        assert combined == {"", "middle: midrange of 2"} | gold
