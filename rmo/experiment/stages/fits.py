"""Everything computed from the run as small files: curves.csv, coefficients.json, claims.json, and the tables."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rmo.analysis.curve import Curve
from rmo.analysis.curve_id import COLUMNS as ID
from rmo.analysis.curve_id import CurveId, Settings
from rmo.analysis.scaling import not_fitted, summarise
from rmo.artifacts.measured import curves, diagnostic_rows, path_rows
from rmo.artifacts.run_files import Fits
from rmo.artifacts.stages import Optimised, Proxies, Samples, Scores
from rmo.claims import ensemble_table
from rmo.claims.claim import applies, claims, judge
from rmo.claims.evidence import Evidence
from rmo.config import Recipe
from rmo.config.names import of_policy
from rmo.experiment import efficiency
from rmo.experiment.audit import audit
from rmo.experiment.efficiency import annotator_rows, initial_texts, split_rows
from rmo.experiment.ensembles import costs
from rmo.experiment.run import Run
from rmo.methods import method as methods
from rmo.methods.bench import SPREAD
from rmo.methods.best_of_n import nested, nested_ns
from rmo.runtime.files import Row
from rmo.tracking.jsonl import Log
from rmo.tracking.progress import say

RM = ["rm_params", "rm_comparisons", "rm_recipe", "seed", "steps"]
RM += ["validation_loss", "validation_accuracy", "calibration_error"]
PATHS = [*ID, "step_or_n", "kl", "accuracy", "confidence", "support", "kl_given", "gold", "annotator", SPREAD]
DIAGNOSTICS = [*ID, "step", "kl", "proxy", "gold", "kl_efficiency"]


def fits(run: Run, out: Path) -> None:
    """Tables, fits, verdicts, and whether gold is a fair judge."""
    f, files = run.experiment.fits, Fits(out)
    found = [curve for stage in optimised_stages(run) for curve in curves(*stage)]
    rms, starts = reward_models(run), policies(run)
    files.write_curves(found)
    files.write_table("reward_models", RM, rms)
    write_paths(run, files)
    health = write_diagnostics(run, files, frontier_of(found))
    files.write("policies", starts)
    files.write("nested", growing_n(run))
    fitted = summarise(found, f.bootstrap, f.level, f.min_d)
    for line in (line for name, part in fitted.items() for line in not_fitted(name, part)):
        say(f"fits: {line}")
    files.write("coefficients", fitted)
    gold = {row["policy_params"]: np.array(row["gold_per_prompt"]) for row in starts}
    against_rms = [curve for curve in found if not curve.id.against_gold]
    evidence = Evidence(against_rms, rms, gold, f.bootstrap, min_d=f.min_d, diagnostics=health)
    files.write("claims", verdicts(out, evidence, f.level))
    if several := ensemble_table.table(evidence, costs(run), f.level):
        files.write_table("ensembles", ensemble_table.COLUMNS, several)
    files.write("gold", audit(run))
    stages, initial = list(optimised_stages(run)), initial_texts(run)
    main = [stage for stage in stages if stage[2].samples == "samples"]  # other policies start from other texts
    split = [row for stage in main for row in split_rows(initial, *stage)]
    files.write_table("efficiency", efficiency.COLUMNS, split)
    found_at = efficiency.against_gold(found, f.bootstrap, f.level)
    files.write("efficiency", {"explained": initial.explained, "at": found_at})
    files.write("annotator", annotator_rows(stages, f.bootstrap, f.level))


def write_paths(run: Run, files: Fits) -> None:
    """paths.csv: how each reward judges the optimised policy's own samples."""
    rows = [row for _, optimised, _ in optimised_stages(run) for row in path_rows(optimised)]
    files.write_table("paths", PATHS, rows)


def write_diagnostics(run: Run, files: Fits, frontier: dict[CurveId, Curve]) -> dict[str, list[Row]]:
    """A table of every method that has diagnostics, under its name; the rows by it."""
    tables = {}
    for method in methods.every():
        mine = [stage for stage in optimised_stages(run) if stage[0] == method]
        if mine and method.diagnostics:
            recorded = [name for _, optimised, _ in mine for name in optimised.record.diagnostics]
            columns = dict.fromkeys([*DIAGNOSTICS, *(d.name for d in method.diagnostics), *recorded])
            rows = [row for stage in mine for row in diagnostic_rows(*stage, frontier)]
            files.write_table(method.name, list(columns), rows)
            tables[method.name] = rows
    return tables


def verdicts(out: Path, evidence: Evidence, level: float) -> list[Row]:
    """Every claim that the run lists, judged."""
    every, done = [c for c in claims() if applies(c, evidence)], []
    log = Log(out, "claims", len(every), "claim")
    for claim in every:
        done.append(judge(claim, evidence, level))
        log.bar.to(len(done))
    log.close()
    return done


def optimised_stages(run: Run) -> Iterator[tuple[methods.Method, Optimised, Scores]]:
    """(method, its record, the scores of its rewards) of every stage of a method."""
    by_name = {method.name: method for method in methods.every()}
    for name in run.stages:
        if method := by_name.get(name.split("/")[0]):
            optimised = Optimised(run.path(name))
            yield method, optimised, Scores(run.path(optimised.scores))


def frontier_of(found: list[Curve]) -> dict[CurveId, Curve]:
    """What other methods' KL is measured against, by RM and policy: the first method whose KL is a bound, best-of-n."""
    first = next(method.name for method in methods.every() if method.kl == "bound")
    return {curve.id.same_rm: curve for curve in found if curve.method == first and not curve.id.settings}


def reward_models(run: Run) -> list[Row]:
    """One row per proxy: loss and accuracy on held-out prompts; calibration error where it was calibrated."""
    out = []
    for name in run.stages:
        if not name.startswith("proxies/"):
            continue
        proxies, scores = Proxies(run.path(name)), name.replace("proxies/", "scores/")
        calibrated = Scores(run.path(scores)).calibrations() if scores in run.stages else None
        for m, row in enumerate(proxies.rows()):
            error = calibrated[m].error if calibrated else None
            known = {"rm_params": proxies.params()["non_embedding"], "rm_comparisons": row.comparisons}
            known |= {"rm_recipe": row.recipe, "calibration_error": error}
            out.append({**row._asdict(), **known})
    return out


def policies(run: Run) -> list[Row]:
    """Each initial policy: its size, held-out loss, and mean gold per prompt in standard deviations of the main one."""
    e, calibration, out = run.experiment, run.gold_calibration(), []
    for policy in range(len(e.policies)):
        samples = Samples(run.path(of_policy("samples", policy, e)))
        pools = [samples.draws(q).gold.astype(np.float64) for q in range(e.bon.prompts)]
        info = run.policy_info(policy)
        out.append(
            {
                "policy_params": info.params["non_embedding"],
                "held_out_loss": info.held_out_loss,
                "gold_per_prompt": [float(calibration(pool).mean()) for pool in pools],
            }
        )
    return out


def growing_n(run: Run, prompts: int = 6) -> list[Row]:
    """Paper Table 2: for the first prompts, the best of the first n draws at growing n against the first seed of every
    RM of the main recipe."""
    recipe = run.experiment.proxies.sweeps[0].recipes[0]
    main = recipe.comparisons, Settings.differing(recipe, Recipe(recipe.comparisons)), ""
    out: list[Row] = []
    for name in run.stages:
        if name.startswith("scores/"):
            scores = Scores(run.path(name))
            first = scores.rows()[0]
            if (first.comparisons, first.recipe, first.combined) == main:
                out += growing_n_of(run, name, scores, prompts)
    return out


def growing_n_of(run: Run, name: str, scores: Scores, prompts: int) -> Iterator[Row]:
    """The rows of one `scores` stage, of its first reward."""
    e, samples, ns = run.experiment, Samples(run.path(scores.samples)), nested_ns(run.experiment.bon.draws)
    calibration, gold = scores.calibrations()[0].calibration, run.gold_calibration()
    for q in range(min(prompts, e.bon.prompts)):
        proxy_N = calibration(scores.raw(q)[0].astype(np.float64))
        gold_N = gold(samples.draws(q).gold.astype(np.float64))
        for n, draw in zip(ns, nested(proxy_N, ns), strict=True):
            yield {
                "rm": name.removeprefix("scores/"),
                "rm_params": scores.params(),
                "policy_params": scores.policy_params(),
                "prompt": q,
                "n": int(n),
                "draw": int(draw),
                "proxy": float(proxy_N[draw]),
                "gold": float(gold_N[draw]),
            }
