"""A finished run directory of any size, written through the typed artifacts and nothing trained: 25 RM sizes by so many
sweeps, each with proxies, scores, best-of-n and PPO of two seeds, every curve with so many points.

    python -m tests.helpers.large_run DIRECTORY --sweeps 20 --points 100

With 20 sweeps these are 2,010 stage instances, and with 100 points 200,000 of curves; its numbers follow the methods' own
forms with noise and mean nothing.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np

from rmo.analysis.curve import Curve
from rmo.analysis.curve_id import CurveId, Settings
from rmo.analysis.fitting import group
from rmo.analysis.forms import FORMS
from rmo.analysis.scaling import summarise
from rmo.artifacts.measured import curves, diagnostic_rows, path_rows
from rmo.artifacts.run_files import Fits, RunFiles
from rmo.artifacts.stages import (
    Calibrated,
    Draws,
    Optimised,
    Policy,
    PolicyInfo,
    Prompts,
    Proxies,
    ProxyRow,
    Samples,
    Scores,
    Stage,
)
from rmo.checkpoints import tokenizers
from rmo.config import Against, Experiment, Model, Recipe, Sweep
from rmo.config import Fits as FitsConfig
from rmo.experiment import graph
from rmo.experiment.run import Run
from rmo.experiment.stages.fits import DIAGNOSTICS, PATHS, RM, optimised_stages
from rmo.experiment.stages.report import status
from rmo.methods.bench import JUDGED, Arm, Record, RewardRow
from rmo.methods.method import find
from rmo.rewards.calibration import Calibration
from rmo.runtime import code
from rmo.runtime.files import Row, write_npz, write_text
from tests.helpers.smoke import SMOKE

SIZES, SEEDS, PROMPTS, DRAWS = 25, 2, 8, 128
PARAMS = {"total": 4000, "non_embedding": 3120}
NOW = 1_700_000_000.0


def experiment(sweeps: int) -> Experiment:
    """The smoke experiment with 25 RM sizes, and with so many numbers of comparisons."""
    shapes = tuple(Model(width=4 * (i + 2), layers=1, heads=2, activation="relu") for i in range(SIZES))
    names = ["main", *(f"comparisons{100 + i}" for i in range(1, sweeps))]
    every = tuple(Sweep(name=name, recipes=(Recipe(1000 - 10 * i),)) for i, name in enumerate(names))
    return dataclasses.replace(
        SMOKE,
        name="large",
        proxies=dataclasses.replace(SMOKE.proxies, sizes=shapes, sweeps=every, seeds=SEEDS),
        ppo=dataclasses.replace(SMOKE.ppo, against=tuple(Against(name=name, sweep=name) for name in names)),
        fits=FitsConfig(bootstrap=2),
    )


def rm_params(name: str) -> int:
    """Of an RM whose stage is called w8x1-...; made up, growing with the width."""
    width = int(name.split("/")[1].split("x")[0].lstrip("w")) if "/w" in name else 30
    return 12 * width**2 + width


def log(stage: Stage, rows: list[dict[str, object]]) -> None:
    """metrics.jsonl and speed.jsonl, as `rmo.tracking.jsonl.Log` writes them."""
    speed = [{"step": k, "of": len(rows), "seconds": 0.06, "iterate": 0.04, "wait": 0.01} for k in range(len(rows))]
    for name, lines in (("metrics", rows), ("speed", speed)):
        write_text(stage.directory / f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def finish(run: Run, name: str) -> None:
    """What `runner.make` leaves of every stage."""
    stage, here = Stage(run.path(name)), code.code_hash()
    stage.mark_begun(here)
    stage.write_cost(
        {"seconds": 12.5, "compile_seconds": 2.0, "programs": {"step": 1}, "rmo": "0", "code": here, "commit": "",
         "python": "3", "jax": "0", "backend": "cpu", "devices": 1, "cores": 2, "processes": 1}
    )  # fmt: skip
    stage.mark_done(run.stages[name].path)


def write_policy(run: Run) -> None:
    """SFT, gold and the pool."""
    sft, samples, rng = Policy(run.path("sft")), Samples(run.path("samples")), np.random.default_rng(0)
    sft.write(PolicyInfo(PARAMS, 64, 2.5))
    tokenizers.save_tokenizer(run.world.tokenizer, sft.tokenizer)
    log(sft, [{"step": k, "loss": 2.5} for k in range(64)])
    Stage(run.path("gold")).write_info({"params": PARAMS, "sentence": "made up"})
    Stage(run.path("comparisons")).write_info({"params": PARAMS})
    response = run.experiment.world.response
    samples.write_prompts(Prompts(np.full((PROMPTS, 4), 5, np.int32), np.ones((PROMPTS, 4), bool)))
    samples.write_calibration(Calibration(0.0, 1.0))
    for q in range(PROMPTS):
        tokens = rng.integers(4, 20, (DRAWS, response)).astype(np.uint8)
        draws = Draws(
            tokens, np.ones(tokens.shape, bool), np.full(DRAWS, -9.0, np.float32), np.zeros(DRAWS, np.float32)
        )
        write_npz(samples.parts / f"{q:05d}.npz", **draws._asdict())


def write_rm(run: Run, name: str) -> None:
    """One proxies stage."""
    stage, size = Proxies(run.path(name)), rm_params(name)
    sweep = next(s for s in run.experiment.proxies.sweeps if name.endswith(f"-{s.name}"))
    of = sweep.recipes[0].comparisons
    rows = [ProxyRow(of, Settings(), 0, seed, 16, 0.6 - 1e-5 * size, 0.7) for seed in range(SEEDS)]
    stage.write({"total": 2 * size, "non_embedding": size}, rows, {})
    log(stage, [{"step": k, "loss": [0.6, 0.6], "accuracy": [0.7, 0.7]} for k in range(16)])


def write_scores(run: Run, name: str) -> None:
    """One scores stage."""
    stage, size = Scores(run.path(name)), rm_params(name)
    proxies = name.replace("scores/", "proxies/")
    found = Proxies(run.path(proxies)).rows() if proxies in run.stages else []
    rows = [RewardRow(str(m), row.comparisons, row.recipe, 0, row.seed) for m, row in enumerate(found)]
    rows = rows or [RewardRow("gold", None, Settings(), 0, 0, "gold")]
    sweep = name.split("-", 1)[1] if found else ""
    stage.write("samples", sweep, {"total": 2 * size, "non_embedding": size}, PARAMS, rows)
    stage.write_calibrations([Calibrated(Calibration(0.0, 1.0), 0.05)] * len(rows))
    stage.write_start(np.zeros((len(rows), PROMPTS)), np.zeros(PROMPTS))


def record_of(method: str, arms: list[Arm], points: int, response: int, rng: np.random.Generator) -> Record:
    """Gold on the method's form, the proxy above it; noise per prompt."""
    members, far = len(arms), 3.0 if method != "ppo" else 5.0
    d = np.linspace(0, far, points)
    form = FORMS[find(method).form]
    gold = form.features(d, 0.0) @ np.array([0.9, -0.1 if method != "ppo" else -0.3])
    noise = rng.normal(size=(members, points, PROMPTS)) * 0.05 * (d > 0)[:, None]
    shape = (members, points)
    texts = {
        "tokens": rng.integers(4, 20, (*shape, PROMPTS, response)),
        "mask": np.ones((*shape, PROMPTS, response), bool),
    }
    picks = {"draw": rng.integers(0, DRAWS, (*shape, PROMPTS))}
    named = [one for one in find(method).diagnostics if one.name != "kl_coef"]
    return Record(
        arms, np.tile(np.arange(points) + (method != "ppo"), (members, 1)), np.tile(d**2, (members, 1)),
        (0.8 * d)[:, None] + noise, gold[:, None] + noise, np.ones(shape, bool),
        judged={name: np.full((*shape, PROMPTS), 0.7, np.float32) for name in JUDGED},
        diagnostics={one.name: np.full(shape, 0.5, np.float32) for one in named},
        **(texts if method == "ppo" else picks),
    )  # fmt: skip


def write_optimised(run: Run, name: str, scores_name: str, points: int, rng: np.random.Generator) -> None:
    """One stage of a method."""
    stage, scores, method = Optimised(run.path(name)), Scores(run.path(scores_name)), name.split("/")[0]
    arms = [Arm(m) for m in range(len(scores.rows()))]
    stage.write_arms(scores_name, arms, [scores.id_of(method, arm) for arm in arms])
    record = record_of(method, arms, points, run.experiment.world.response, rng)
    stage.write(record)
    if find(method).logs_points:
        axis, table = find(method).axis, (record.kl, record.proxy.mean(-1), record.gold.mean(-1))
        rows = [[x[:, k].tolist() for x in (record.step_or_n, *table)] for k in range(points)]
        names = ("kl", "proxy", "gold")
        log(stage, [{"step": k, axis: row[0], **dict(zip(names, row[1:], strict=True))} for k, row in enumerate(rows)])


def fitted(found: list[Curve]) -> Row:
    """coefficients.json: as the first six sizes are fitted, told of every group; fitting all would take hours."""
    first = {c.id.rm_comparisons for c in found[:1]}
    few = sorted({c.id.rm_params for c in found if c.id.rm_comparisons in first})[:6]
    main = [thinned(c) for c in found if c.id.rm_comparisons in first and c.id.rm_params in few]
    out = summarise(main, draws=2, rank_draws=2)
    for name, part in out.items():
        groups, rows = group(found, name), part["groups"]
        labels = [f"{g.params} {g.comparisons}" for g in groups]
        part["groups"] = [
            {**rows[i % len(rows)], "group": label, **g.id.cells()}
            for i, (g, label) in enumerate(zip(groups, labels, strict=True))
        ]
        part["main"] = sum(g.comparisons == groups[0].comparisons for g in groups)
    return out


def thinned(curve: Curve) -> Curve:
    """With 12 of its points."""
    k = np.linspace(0, len(curve.kl) - 1, 12).astype(int)
    return Curve(curve.id, curve.step_or_n[k], curve.kl[k], curve.proxy[k], curve.gold[k])


def write_fits(run: Run) -> None:
    """The files that `rmo report` reads, at the top, by the functions that make them; claims and the audit left out."""
    stages, files = list(optimised_stages(run)), Fits(run.root)
    found = [curve for stage in stages for curve in curves(*stage)]
    files.write_curves(found)
    rows = []
    for name in run.stages:
        if name.startswith("proxies/"):
            size = rm_params(name)
            known = {"rm_params": size, "calibration_error": 0.05}
            rows += [
                {**row._asdict(), **known, "rm_comparisons": row.comparisons, "rm_recipe": row.recipe}
                for row in Proxies(run.path(name)).rows()
            ]
    files.write_table("reward_models", RM, rows)
    files.write_table("paths", PATHS, [row for _, optimised, _ in stages for row in path_rows(optimised)])
    frontier: dict[CurveId, Curve] = {c.id.same_rm: c for c in found if c.method == "bon"}
    for name in dict.fromkeys(method.name for method, _, _ in stages if method.diagnostics):
        mine = [row for stage in stages if stage[0].name == name for row in diagnostic_rows(*stage, frontier)]
        files.write_table(name, list(dict.fromkeys([*DIAGNOSTICS, *mine[0]])), mine)
    start = {"policy_params": PARAMS["non_embedding"], "held_out_loss": 2.5, "gold_per_prompt": [0.0] * PROMPTS}
    files.write("policies", [start])
    nested = {
        "rm": "w8x1-main",
        "rm_params": 1,
        "policy_params": PARAMS["non_embedding"],
        "prompt": 0,
        "n": 1,
        "draw": 0,
    }
    files.write("nested", [{**nested, "proxy": 0.0, "gold": 0.0}])
    files.write("coefficients", fitted(found))
    files.write("claims", [])
    files.write("gold", {})
    files.write("annotator", [])


def make(root: Path, sweeps: int, points: int, finished: bool = True) -> Run:
    """Write the run; not `finished`, the later half of its PPO stages is missing and one is begun."""
    run = graph.open_run(experiment(sweeps), root)
    write_policy(run)
    rng = np.random.default_rng(0)
    jobs = {
        f"{m}/{job.name}": f"scores/{job.scores}"
        for m in ("bon", "tilt", "ppo")
        for job in find(m).jobs(run.experiment)
    }
    for name in run.stages:
        kind = name.split("/")[0]
        if kind == "proxies":
            write_rm(run, name)
        elif kind == "scores":
            write_scores(run, name)
        elif name in jobs:
            write_optimised(run, name, jobs[name], points, rng)
        finish(run, name)
    write_text(run.root / "planned.json", json.dumps({name: stage.path for name, stage in run.stages.items()}))
    RunFiles(run.root).publish(run.experiment, status(run))
    if finished:
        write_fits(run)
    return run


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--points", type=int, default=100)
    options = parser.parse_args()
    began = time.monotonic()
    made = make(options.directory, options.sweeps, options.points)
    print(f"{len(made.stages)} stage instances in {made.root}, {time.monotonic() - began:.0f} s")
