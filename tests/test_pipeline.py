"""The whole experiment at smoke size: runs, reports, resumes after a kill bit for bit, notices stale stages."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from rmo import checks, config, costs, files, pipeline, report, sharding, store
from rmo.curve import COLUMNS, from_rows
from rmo.files import RunError, read_csv, read_json, read_npz
from tests.tables import close

ROOT = Path(__file__).parent.parent
SMOKE = checks.load(ROOT / "configs" / "smoke.py")
CLI = [sys.executable, "-c", "from rmo.main import main; main()", "run", "configs/smoke.py"]
ENV = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}  # one device, as a user has


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A finished smoke run, made through the command line; returns its directory."""
    runs = tmp_path_factory.mktemp("runs")
    got = subprocess.run([*CLI, "--runs", str(runs)], cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr[-2000:]
    assert got.stdout.strip().endswith("report.html")
    assert "\r" not in got.stderr  # no terminal: plain lines
    assert "stage 11 of 13: ppo/w8x1-main\n" in got.stderr
    assert "\nppo/w8x1-main: done in " in got.stderr
    return runs / "smoke"


def test_everything_is_there(smoke):
    table = from_rows(read_csv(smoke / "curves.csv"))
    assert len(table) == (3 + 1) * 2  # (proxies under best-of-n, under PPO) x seeds
    for curve in table:
        assert curve.kl[0] < 1e-5
        assert (np.diff(curve.step_or_n) > 0).all()
        if curve.method == "bon":
            assert curve.gold[0] == pytest.approx(0, abs=1e-6)
            assert curve.proxy[0] == pytest.approx(0, abs=1e-6)
            assert (np.diff(curve.proxy) > 0).all()
        else:
            assert curve.kl[-1] > 1.5
            assert curve.proxy[-1] > curve.proxy[0]
    header = (smoke / "curves.csv").read_text().splitlines()[0]
    assert header == ",".join(COLUMNS)
    assert set(read_json(smoke / "coefficients.json")) == {"bon", "ppo"}
    gold = read_json(smoke / "gold.json")
    assert {"policy samples", "best-of-n path", "PPO path"} < set(gold)
    assert gold["policy samples"]["gold_mean"] == pytest.approx(0, abs=0.1)  # centred on the initial policy
    page = (smoke / "report.html").read_text()
    drawn = {path.stem for path in (smoke / "figures").glob("*.svg")}
    assert page.count("<svg") == len(drawn)
    assert {"fig1a", "fig1b", "fig2", "fig3a", "fig8", "fig11", "fig16", "fig26b", "beirami", "rival_forms"} < drawn
    assert "No analogue in this run: no KL penalties." in page  # figure 9: one line says why
    claims = read_json(smoke / "claims.json")
    assert {c["verdict"] for c in claims} == {"undecided"}  # two RM seeds decide nothing
    assert all(c["why"] for c in claims)
    assert "http-equiv" not in page
    assert "src=" not in page.replace("&", "")  # self-contained
    assert "&lt;eos&gt;" in page  # decoded text is shown
    assert not list(smoke.rglob("*.part")) + list(smoke.rglob("scratch"))


def test_gold_is_calibrated_on_the_initial_policy(smoke):
    run = pipeline.open_run(SMOKE, smoke)
    tables = [read_npz(f)["gold"] for f in sorted((run.path("samples") / "draws").glob("*.npz"))]
    scores = run.gold_calibration()(np.stack(tables).astype(np.float64))
    assert scores.mean() == pytest.approx(0, abs=1e-6)
    assert scores.std() == pytest.approx(1, abs=1e-5)


def test_comparisons_split_by_prompt_and_agree_with_gold(smoke):
    from rmo import data

    directory = pipeline.open_run(SMOKE, smoke).path("comparisons")
    train, held = (data.read_comparisons(directory / "dataset", split) for split in ("train", "validation"))
    assert not set(train.prompt) & set(held.prompt)
    assert len(held.tokens) == 120
    assert (train.gold[:, 0] >= train.gold[:, 1]).all()  # hard labels
    info = read_json(directory / "info.json")
    assert info["agreement_with_gold"] + info["ties"] >= 0.999


def test_second_run_recomputes_nothing(smoke):
    before = {p: p.stat().st_mtime_ns for p in smoke.rglob("*") if p.is_file() and p.parent != smoke}
    started = time.monotonic()
    got = subprocess.run([*CLI, "--runs", str(smoke.parent)], cwd=ROOT, env=ENV, capture_output=True, text=True)
    assert got.returncode == 0
    assert time.monotonic() - started < 30
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_going_back_to_an_earlier_setting_shows_its_own_report(smoke, tmp_path):
    """Everything at the top of a run directory belongs to one experiment, whichever was asked for last."""
    here = tmp_path / "smoke"
    shutil.copytree(smoke, here)
    other = dataclasses.replace(SMOKE, fits=dataclasses.replace(SMOKE.fits, level=0.5))
    first = (here / "report.html").read_text()
    pipeline.execute(run := pipeline.open_run(other, here, sharding.make_mesh()))
    pipeline.publish(run)
    assert "50% intervals" in (here / "report.html").read_text()
    pipeline.publish(pipeline.open_run(SMOKE, here))
    assert (here / "report.html").read_text() == first
    assert read_json(here / "experiment.json")["fits"]["level"] == SMOKE.fits.level
    unfinished = dataclasses.replace(SMOKE, seed=5)
    pipeline.publish(pipeline.open_run(unfinished, here))
    assert read_json(here / "experiment.json")["seed"] == SMOKE.seed  # nothing is half replaced


class Kill(BaseException):
    """Stands for SIGKILL: nothing below catches it."""


@pytest.mark.parametrize("where", ["save_params", "write_json", "rmtree"])
def test_a_kill_between_any_two_steps_of_a_stage_is_survived(where, tmp_path, monkeypatch):
    """Saving, describing, marking done, cleaning up: dying in any of them costs a repetition, never the stage."""
    tiny = dataclasses.replace(SMOKE, sft=dataclasses.replace(SMOKE.sft, texts=256, epochs=1))
    run = pipeline.open_run(tiny, tmp_path / "run", sharding.make_mesh(1))
    owner = {"save_params": store, "write_json": pipeline, "rmtree": files.shutil}[where]
    real = getattr(owner, where)

    def dying(path, *args, **kwargs):
        if where == "rmtree":  # half of it is gone already
            for file in sorted(Path(path).rglob("*"))[::2]:
                if file.is_file():
                    file.unlink()
        raise Kill

    monkeypatch.setattr(owner, where, dying)
    with pytest.raises(Kill):
        pipeline.execute(run, ("sft",))
    monkeypatch.setattr(owner, where, real)
    assert pipeline.execute(run, ("sft",)) == ([] if where == "rmtree" else ["sft"])
    assert run.done("sft")
    assert not (run.path("sft") / "scratch").exists()


def test_purposes_do_not_share_prompts_on_disk(smoke):
    from rmo import data

    run = pipeline.open_run(SMOKE, smoke)
    width = SMOKE.world.prompt
    read = {row.tobytes() for row in read_npz(run.path("samples") / "prompts.npz")["tokens"]}
    pairs = data.read_comparisons(run.path("comparisons") / "dataset", "train").tokens[:, 0, :width]
    ppo = run.world.prompts(run.rng("ppo prompts"), SMOKE.ppo.prompts, "ppo").tokens
    compared, optimised = ({np.ascontiguousarray(row).tobytes() for row in rows} for rows in (pairs, ppo))
    assert read
    assert not read & compared
    assert not read & optimised
    assert not compared & optimised


def test_stale_is_detected(smoke):
    other = dataclasses.replace(SMOKE, proxies=dataclasses.replace(SMOKE.proxies, batch=32))
    states = {row["stage"]: row["state"] for row in pipeline.status(pipeline.open_run(other, smoke))}
    assert states["sft"] == states["samples"] == states["comparisons"] == "done"
    assert (
        states["proxies/w8x1-main"] == states["bon/w8x1-main"] == states["ppo/w8x1-main"] == states["fits"] == "stale"
    )


# Programs of a model's size that each kind of stage compiles, and how many small ones beside them at most.
PROGRAMS = {
    "sft": ({"step", "loss"}, 6), "gold": ({"step", "sample", "score"}, 3), "samples": ({"sample_n", "score_n"}, 3),
    "comparisons": ({"sample", "score"}, 2), "proxies": ({"step", "score"}, 25), "bon": ({"<lambda>"}, 8),
    "ppo": ({"advance", "read"}, 21), "fits": ({"score"}, 0), "report": (set(), 0),
}  # fmt: skip


def test_every_program_is_compiled_once(smoke):
    """A shape or a static argument that changes from call to call would compile one again."""
    for stage in read_json(smoke / "stages.json"):
        programs = read_json(smoke / stage["path"] / "cost.json")["programs"]
        large, small = PROGRAMS[stage["stage"].split("/")[0]]
        assert {name: programs.get(name) for name in large} == dict.fromkeys(large, 1), stage["stage"]
        assert sum(programs.values()) - len(large) <= small, (stage["stage"], programs)


def test_the_report_says_where_the_time_went(smoke):
    stages = read_json(smoke / "stages.json")
    where = {row["stage"]: smoke / row["path"] for row in stages}
    found = {row["stage"]: row for row in costs.costs(stages, where)}
    assert found["bon"]["instances"] == 3
    assert sum(row["seconds"] for row in found.values()) == pytest.approx(sum(row["seconds"] for row in stages))
    for kind, parts in {"samples": {"sample", "score"}, "ppo": {"iterate", "read", "wait"}, "sft": {"batch"}}.items():
        assert parts <= set(found[kind]["spent"])
        assert 0 < sum(found[kind]["spent"].values()) < found[kind]["seconds"]
        assert found[kind]["tokens_per_second"] > 0
    assert 0 < found["ppo"]["compile"] < found["ppo"]["seconds"]
    assert "where its time went" in (smoke / "report.html").read_text()


def test_report_comes_from_files_alone(smoke):
    page = (smoke / "report.html").read_text()
    (smoke / "report.html").unlink()
    report.write(smoke)
    again = (smoke / "report.html").read_text()
    strip = lambda text: text[: text.index("What this run cost")]
    assert strip(page) == strip(again)
    with pytest.raises(RunError, match="not a run"):
        report.write(smoke.parent)


def test_fit_command_on_the_run_and_on_foreign_curves(smoke, tmp_path):
    def rmo(*args):
        code = "from rmo.main import main; main()"
        return subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, env=ENV, capture_output=True, text=True)

    got = rmo("fit", str(smoke / "curves.csv"), "--out", str(tmp_path / "own"), "--bootstrap", "50")
    assert got.returncode == 0, got.stderr
    assert json.loads((tmp_path / "own" / "coefficients.json").read_text()).keys() == {"bon", "ppo"}
    d = np.linspace(0, 3, 20)
    lines = ["kl,gold", *(f"{x * x},{x * (0.5 - 0.12 * x)}" for x in d)]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    got = rmo("fit", str(tmp_path / "mine.csv"))
    assert got.returncode == 0, got.stderr
    assert "a 0.500" in got.stdout
    assert "b 0.120" in got.stdout
    assert (tmp_path / "mine_fit" / "bon.svg").exists()


def test_only_needs_upstream(tmp_path):
    run = pipeline.open_run(SMOKE, tmp_path / "smoke", sharding.make_mesh())
    with pytest.raises(RunError, match="samples needs sft"):
        pipeline.execute(run, ("samples",))


def test_labels():
    from rmo import data

    gap = np.random.default_rng(0).normal(size=200_000)
    for c, expected in [
        (config.Comparisons(), np.ones_like(gap)),
        (config.Comparisons(labels="flipped", flip=0.2), np.full_like(gap, 0.8)),
        (config.Comparisons(labels="sampled", temperature=0.5), 1 / (1 + np.exp(-np.abs(gap) / 0.5))),
    ]:
        agrees = data.label(np.random.default_rng(1), gap, c) == (gap > 0)
        assert agrees.mean() == pytest.approx(expected.mean(), abs=0.005)
    ties = data.label(np.random.default_rng(1), np.zeros(10_000), config.Comparisons())
    assert ties.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_random_teacher_and_sharded_run(tmp_path):
    """The other gold, on 8 devices, up to best-of-n."""
    e = dataclasses.replace(SMOKE, gold=dataclasses.replace(SMOKE.gold, kind="random"))
    run = pipeline.open_run(e, tmp_path / "smoke", sharding.make_mesh())
    assert jax.device_count() == 8
    pipeline.execute(run, ("sft", "gold", "samples", "comparisons", "proxies/w8x1-main", "bon/w8x1-main"))
    curve = read_npz(run.path("bon/w8x1-main") / "curve.npz")
    assert (np.diff(curve["proxy"].mean(-1), axis=1) > 0).all()
    assert curve["gold"].mean(-1)[:, -1].min() > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("model", [1, 2, 4])
def test_the_same_curves_on_eight_devices(smoke, tmp_path, model):
    """As 8x1, 4x2 and 2x4: those of one device, but for rounding (and what follows where it turns one drawn token)."""
    env = ENV | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [*CLI, "--runs", str(tmp_path), "--model-parallel", str(model)]
    got = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr[-2000:]
    assert len(read_csv(smoke / "curves.csv")) > 50
    close(smoke / "curves.csv", tmp_path / "smoke" / "curves.csv", 2e-4)


@pytest.mark.slow
def test_sigkill_anywhere_ends_in_the_same_bytes(smoke, tmp_path):
    """Killed with SIGKILL again and again at growing delays, the run ends with the undisturbed curves.csv."""
    command = [*CLI, "--runs", str(tmp_path)]
    for attempt in range(12):
        process = subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=8 + 1.7 * attempt)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        else:
            break
    assert subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True).returncode == 0
    for name in ("curves.csv", "coefficients.json", "gold.json"):
        assert (tmp_path / "smoke" / name).read_bytes() == (smoke / name).read_bytes()


def test_only_picks_a_kind_or_one_instance():
    """`sft` is also that of another policy, whose name begins so; `=sft` is not."""
    e = dataclasses.replace(SMOKE, other_policies=(config.OtherPolicy(dataclasses.replace(SMOKE.policy, width=48)),))
    run = pipeline.open_run(e, Path("nowhere"))
    other = f"sft/48x{SMOKE.policy.layers}"
    assert pipeline.matching(run, ("sft",)) == ["sft", other]
    assert pipeline.matching(run, ("=sft",)) == ["sft"]
    assert pipeline.matching(run, (other, f"={other}")) == [other]
    assert pipeline.matching(run, ("=proxies/w8x1-main", "fits")) == ["proxies/w8x1-main", "fits"]
    with pytest.raises(RunError, match="no such stage"):
        pipeline.matching(run, ("=proxies",))
    names = [name for _, _, names in pipeline.groups(run) for name in names]
    assert sorted(names) == sorted(run.stages)
    before = {}
    for group, needs, names in pipeline.groups(run):
        done = {name for need in needs for name in before[need]}
        for name in names:
            assert {stage.name for stage in run.stages[name].upstream} <= done
        before[group] = names
