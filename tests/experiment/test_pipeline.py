"""The whole experiment at smoke size: runs, reports, resumes after a kill bit for bit, notices stale stages."""

import dataclasses
import html
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from rmo import config
from rmo.analysis.curve import COLUMNS, from_rows
from rmo.checkpoints import saved_model, tokenizers
from rmo.cli import main
from rmo.config import checks
from rmo.experiment import pipeline
from rmo.report import compare, run_report
from rmo.report.page import costs
from rmo.runtime import files, sharding
from rmo.runtime.files import RunError, read_csv, read_json, read_npz
from rmo.tracking import dashboard
from rmo.worlds import comparisons
from tests.helpers import browser, wandb_files
from tests.helpers.flags import FAST
from tests.helpers.tables import close

ROOT = Path(__file__).parents[2]
SMOKE = checks.load(ROOT / "configs" / "smoke.py")
CLI = [sys.executable, "-c", "from rmo.cli.main import main; main()", "run", "configs/smoke.py"]
ENV = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FAST}  # one device, as a user has


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A finished smoke run, made through the command line; returns its directory."""
    runs = tmp_path_factory.mktemp("runs")
    command = [*CLI, "--runs", str(runs), "--wandb", "project"]
    got = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True)
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
    assert page.count("<figure>") == len(drawn)
    assert {"fig1a", "fig1b", "fig2", "fig3a", "fig8", "fig11", "fig16", "fig26b", "beirami", "rival_forms"} < drawn
    assert re.search("<h3>No analogue in this run</h3>.*<li>Figure 9[^<]*: no KL penalties</li>", page)
    assert page.index("id=fig1a") < page.index("id=claims") < page.index("id=fig2")  # what readers came for is first
    assert f"<b>{html.escape(SMOKE.note)}</b>" in page  # that its numbers mean nothing
    claims = read_json(smoke / "claims.json")
    assert {c["verdict"] for c in claims} == {"undecided"}  # two RM seeds decide nothing
    assert all(c["why"] for c in claims)
    assert not re.search(r"<(script|link|img|iframe)[^>]* (src|href)=['\"]?(http|//)", page)  # self-contained
    assert "&lt;eos&gt;" in page  # decoded text is shown
    assert not list(smoke.rglob("*.part")) + list(smoke.rglob("scratch"))


def test_gold_is_calibrated_on_the_initial_policy(smoke):
    run = pipeline.open_run(SMOKE, smoke)
    tables = [read_npz(f)["gold"] for f in sorted((run.path("samples") / "draws").glob("*.npz"))]
    scores = run.gold_calibration()(np.stack(tables).astype(np.float64))
    assert scores.mean() == pytest.approx(0, abs=1e-6)
    assert scores.std() == pytest.approx(1, abs=1e-5)


def test_comparisons_split_by_prompt_and_agree_with_gold(smoke):

    directory = pipeline.open_run(SMOKE, smoke).path("comparisons")
    train, held = (comparisons.read_comparisons(directory / "dataset", split) for split in ("train", "validation"))
    assert not set(train.prompt) & set(held.prompt)
    assert len(held.tokens) == 120
    assert (train.gold[:, 0] >= train.gold[:, 1]).all()  # hard labels
    info = read_json(directory / "info.json")
    assert info["agreement_with_gold"] + info["ties"] >= 0.999


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
    table = {name: read_json(next((smoke / "wandb").glob(f"*/files/media/table/{name}_*.json"))) for name in (
        "fits/curves", "fits/reward_models", "ppo/curve")}  # fmt: skip
    rows = read_csv(smoke / "curves.csv")
    assert table["fits/curves"]["columns"] == table["ppo/curve"]["columns"] == list(rows[0])
    assert len(table["fits/curves"]["data"]) == len(rows)
    for got, row in zip(table["ppo/curve"]["data"], [row for row in rows if row["method"] == "ppo"], strict=True):
        assert got[4] == pytest.approx(float(row["gold"]), rel=1e-8)
    for kind, i in itertools.product(("bon", "ppo"), (0, 1)):  # a member's curve is that of curves.csv, in its own rows
        want = [row for row in rows if (row["method"], row["rm_params"], row["seed"]) == (kind, "801", str(i))]
        sent = [row for row in runs[f"{kind}/w8x1-main"].rows.values() if f"{kind}/curve/gold/{i}" in row]
        assert not any(f"{kind}/curve/gold/{1 - i}" in row for row in sent)
        for name, column in ((f"gold/{i}", "gold"), (f"proxy/{i}", "proxy"), ("kl", "kl")):
            expected = [float(row[column]) for row in want]
            assert [row[f"{kind}/curve/{name}"] for row in sent] == pytest.approx(expected, rel=1e-8, abs=1e-8)
        d, kl = (np.array([row[f"{kind}/curve/{name}"] for row in sent]) for name in ("sqrt_kl", "kl"))
        np.testing.assert_allclose(d**2, np.maximum(kl, 0), rtol=1e-12)
    info = read_json(next(smoke.glob("proxies/w8x1*/info.json")))
    assert runs["proxies/w8x1-main"].summary["proxies/validation_loss/1"] == info["members"][1]["validation_loss"]
    # Files, and what the dashboard draws.
    (kept,) = runs["report"].artifacts.values()
    assert {"report.html", "results.md", "curves.csv", "coefficients.json", "claims.json", "figures/fig1a.svg"} < set(
        kept
    )
    known = {name for said in runs.values() for row in (*said.rows.values(), said.summary) for name in row}
    drawn = {name for charts in dashboard.LINES.values() for _, x, y in charts for name in (x, *y)} - {"Step"}
    drawn |= {x for _, x, _ in dashboard.CURVES}
    for _, _, pattern in dashboard.CURVES:
        assert any(re.search(pattern, name) for name in known)
    drawn |= {dashboard.SIZE, *(name for _, name in dashboard.POINTS)}
    only_elsewhere = {"utilisation", "peak_memory", "sample", "score", "update"}  # accelerators, large policies
    assert drawn - known <= {f"speed/{name}" for name in only_elsewhere}


@pytest.mark.parametrize("size", browser.SIZES)
def test_the_page_in_a_browser(smoke, size):
    """Tooltips say which RM, n, KL, scores and text; the axis can be changed; claims lead to their figures; the page fits
    its window, asks for nothing and has no error."""
    drawn = [r for r in read_csv(smoke / "curves.csv") if r["method"] == "bon"]
    rows = [r for r in drawn if (r["rm_params"], r["seed"]) == ("801", "0")]
    apart = [
        [abs(float(o["gold"]) - float(r["gold"])) for o in drawn if o["kl"] == r["kl"] and o is not r] for r in rows
    ]
    k = max(range(len(rows)), key=lambda k: min(apart[k]))  # the point that is farthest from others at its n
    with browser.opened(smoke / "report.html", size) as page:
        markers = page.evaluate("document.getElementById('fig1a-plot').data.findIndex(t => t.mode == 'markers')")
        said = browser.hover(page, "fig1a-plot", markers, k)
        want = rows[k]
        assert f"n {int(want['step_or_n']):,}" in said
        assert f"KL {float(want['kl']):.3g} nats" in said
        assert f"gold {float(want['gold']):.3f}, proxy {float(want['proxy']):.3f}" in said
        samples = read_npz(next(smoke.glob("samples-*/draws/00000.npz")))
        winner = read_npz(next(smoke.glob("bon/w8x1-main-*/curve.npz")))["winner"][0, k, 0]
        tokenizer = tokenizers.load_tokenizer(next(smoke.glob("sft-*/tokenizer")))
        text = tokenizers.decode(tokenizer, samples["tokens"][winner], samples["mask"][winner])
        assert "one response to the first prompt" in said
        assert text.split()[0] in said
        assert text.split()[-1] in said

        x = f"document.getElementById('fig1a-plot').data[{markers}].x[{k}]"
        root = page.evaluate(x)
        page.locator("#fig1a-plot .updatemenu-button", has_text="KL").last.click()
        page.wait_for_function(f"Math.abs({x} - {root**2}) < 1e-2")
        assert page.evaluate("document.getElementById('fig1a-plot').layout.xaxis.title.text") == "KL, nats"

        link = page.locator("#claims ~ table a").first
        target = link.get_attribute("href")
        link.click()
        assert page.evaluate("location.hash") == target
        assert abs(page.evaluate(f"document.querySelector('{target}').getBoundingClientRect().top")) < 200
        assert page.evaluate("document.documentElement.scrollWidth") <= browser.SIZES[size]["width"]
        assert page.locator("mark").count() > 0


def test_several_runs_on_one_page(smoke, tmp_path):
    """A copy with another penalty, and a verdict turned around, beside the run itself."""
    other = tmp_path / "other"
    other.mkdir()
    for file in [*smoke.glob("*.csv"), *smoke.glob("*.json")]:
        (other / file.name).write_text(file.read_text())
    e, claims = read_json(other / "experiment.json"), read_json(other / "claims.json")
    e["ppo"]["kl_max"] += 1
    claims[0]["verdict"] = "holds" if claims[0]["verdict"] != "holds" else "fails"
    files.write_json(other / "experiment.json", e)
    files.write_json(other / "claims.json", claims)
    rows = read_csv(smoke / "curves.csv")
    for row in rows:
        row["gold"] = str(float(row["gold"]) / 2) if row["rm_params"] == "801" else row["gold"]
    files.write_csv(other / "curves.csv", list(rows[0]), rows)
    page = compare.write([smoke, other], tmp_path / "compare.html")
    text = page.read_text()
    assert text.count("<mark>") == 1
    assert f"<mark>{html.escape(claims[0]['text'])}</mark>" in text
    assert f"<summary>{len(claims) - 1} claims that every run leaves undecided</summary>" in text
    assert text.index("id=configs") < text.index("id=curves")
    differ = re.findall(r"<tr><td>([\w.]+)</td><td class=text>", text[text.index("id=configs") :])
    assert differ == ["ppo.kl_max"]
    assert "The same gold judged all of them" in text
    with browser.opened(page, "desktop") as shown:
        sizes = {r["rm_params"] for r in read_csv(smoke / "curves.csv") if r["method"] == "bon"}
        assert shown.locator("[id^=bon-][id$=-plot]").count() == len(sizes)
        names = lambda rm: shown.evaluate(
            f"document.getElementById('bon-{rm}-plot').data.filter(t => t.showlegend).map(t => t.name)"
        )
        assert names(801) == ["smoke", "other"]
        assert names(max(map(int, sizes))) == ["smoke = other"]  # one curve, which two would only hide
    with pytest.raises(RunError, match="not a run with finished fits"):
        compare.write([smoke, tmp_path], tmp_path / "compare.html")


def commands() -> list[str]:
    """Every `rmo ...` of README's code blocks, as written."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.S | re.M)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line[line.index("rmo ") :] for line in lines if line.startswith(("rmo ", "launch/local.sh rmo "))]


def test_readmes_commands(smoke, tmp_path, monkeypatch, capsys):
    """They run as they stand, but for the names of files, and `plan`, which test_plan.py has."""
    text = "la tu ke"
    made = {
        "TEXTS.jsonl": [{"prompt": text, "response": text}], "PROMPTS.jsonl": [{"prompt": text}],
        "SCORES.jsonl": [
            {"prompt": f"q{q}", "proxy": p, "gold": p - p * p / 4 + 0.1 * g}
            for q in range(3) for p, g in np.random.default_rng(q).normal(size=(40, 2)).tolist()
        ],
        "LOG": [{"step": k, "objective/kl": k * k, "eval/gold": k * (1 - 0.1 * k), "proxy": k} for k in range(9)],
    }  # fmt: skip
    where = {"CONFIG": "configs/smoke.py", "configs/tiny.py": "configs/smoke.py", "runs/tiny": str(smoke),
             "runs/mine": str(tmp_path / "mine"), "PROJECT": f"project --out {tmp_path}/dashboard.json",
             "MODEL": str(next(smoke.glob("sft-*"))), "--kl COLUMN": "--kl objective/kl",
             "--gold COLUMN": "--gold eval/gold"}  # fmt: skip
    for name, rows in made.items():
        where[name] = str(tmp_path / name.replace("LOG", "log.jsonl"))
        Path(where[name]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine").mkdir()
    for file in [*smoke.glob("*.csv"), *smoke.glob("*.json")]:
        (tmp_path / "mine" / file.name).write_text(file.read_text())
    monkeypatch.chdir(ROOT)

    def leave(code, why):
        raise AssertionError(f"{code}: {why}")

    monkeypatch.setattr(main.hosts, "leave", leave)
    seen = set()
    for command in commands():
        for name, value in where.items():
            command = re.sub(rf"(?<![\w/.]){re.escape(name)}(?![\w/.])", value, command)
        words = command.split()
        seen.add(words[1])
        if words[1] == "plan":
            continue
        if words[1] == "score":
            words[2] = str(next(smoke.glob("gold-*")))
        if words[1] == "sample":
            words += ["--length", "6"]  # smoke's policy takes 14 tokens
        if words[1] in ("run", "list"):
            words += ["--runs", str(smoke.parent)]
        if "--ppo.kl-max" in words:
            words[1] = "list"  # only that the option exists; it would be another experiment
        monkeypatch.setattr(sys, "argv", words)
        main.main()
        assert capsys.readouterr().out.strip(), command
    assert seen == main.COMMANDS.keys()


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


def test_the_report_is_drawn_again_with_what_was_made_again(smoke, tmp_path):
    """As after an edit of the code, which digests do not know: its author removes what it changes."""
    here = tmp_path / "smoke"
    shutil.copytree(smoke, here)
    run = pipeline.open_run(SMOKE, here, sharding.make_mesh())
    shutil.rmtree(run.path("fits"))
    assert pipeline.execute(run, ("fits",)) == ["fits"]
    assert not run.done("report")  # whoever comes next draws it: a job of its own, the command that was killed here
    assert pipeline.execute(run) == ["report"]
    assert pipeline.execute(run) == []
    shutil.rmtree(run.path("bon/w8x1-main"))
    assert pipeline.execute(run) == ["bon/w8x1-main", "fits", "report"]


class Kill(BaseException):
    """Stands for SIGKILL: nothing below catches it."""


@pytest.mark.parametrize("where", ["save_params", "write_json", "rmtree"])
def test_a_kill_between_any_two_steps_of_a_stage_is_survived(where, tmp_path, monkeypatch):
    """Saving, describing, marking done, cleaning up: dying in any of them costs a repetition, never the stage."""
    tiny = dataclasses.replace(SMOKE, sft=dataclasses.replace(SMOKE.sft, texts=256, epochs=1))
    run = pipeline.open_run(tiny, tmp_path / "run", sharding.make_mesh(1))
    owner = {"save_params": saved_model, "write_json": pipeline, "rmtree": files.shutil}[where]
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

    run = pipeline.open_run(SMOKE, smoke)
    width = SMOKE.world.prompt
    read = {row.tobytes() for row in read_npz(run.path("samples") / "prompts.npz")["tokens"]}
    pairs = comparisons.read_comparisons(run.path("comparisons") / "dataset", "train").tokens[:, 0, :width]
    ppo = run.world.prompts(run.rng("ppo prompts"), SMOKE.ppo.prompts, "optimise").tokens
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
    run_report.write(smoke)
    again = (smoke / "report.html").read_text()
    strip = lambda text: text[: text.index("What this run cost")]
    assert strip(page) == strip(again)
    with pytest.raises(RunError, match="not a run"):
        run_report.write(smoke.parent)


def test_fit_command_on_the_run_and_on_foreign_curves(smoke, tmp_path):
    def rmo(*args):
        code = "from rmo.cli.main import main; main()"
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

    gap = np.random.default_rng(0).normal(size=200_000)
    for c, expected in [
        (config.Comparisons(), np.ones_like(gap)),
        (config.Comparisons(labels="flipped", flip=0.2), np.full_like(gap, 0.8)),
        (config.Comparisons(labels="sampled", temperature=0.5), 1 / (1 + np.exp(-np.abs(gap) / 0.5))),
    ]:
        agrees = comparisons.label(np.random.default_rng(1), gap, c) == (gap > 0)
        assert agrees.mean() == pytest.approx(expected.mean(), abs=0.005)
    ties = comparisons.label(np.random.default_rng(1), np.zeros(10_000), config.Comparisons())
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
    env = ENV | {"XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {FAST}"}
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
