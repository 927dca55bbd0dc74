"""One policy's pool scored by every proxy and by what is combined of them; the paper's recalibration (section 2.2)."""

from functools import partial
from pathlib import Path

import jax
import numpy as np

from rmo.artifacts.stages import Calibrated, Scores
from rmo.experiment.ensembles import EnsembleScored
from rmo.experiment.labelled import Labelled
from rmo.experiment.pool import GoldScored, Scored
from rmo.experiment.run import Run
from rmo.methods.best_of_n import best_of_n
from rmo.models import bulk_scoring, metrics, scoring
from rmo.models.transformer import Params
from rmo.rewards.calibration import Calibration, soft_label_scale
from rmo.runtime import hosts
from rmo.tracking.jsonl import Log, parts
from rmo.training.update import pick


def scores(scored: Scored, out: Path) -> None:
    """Raw scores of the pool, prompt by prompt; then every reward's zero and unit, and where curves begin."""
    run, files, params = scored.run, Scores(out), scored.run_params()
    scored.write_rows()
    raw_M = score_pool(scored, out, params)
    main = Scored(run, scored.size, scored.sweep).files.calibrations() if scored.policy else None
    gold_QN = scored.gold_table()
    calibrations = calibrate(scored, raw_M, params, main)
    files.write_calibrations(calibrations)
    tables = scored.calibrated(raw_M, [found.calibration for found in calibrations])
    start = [best_of_n(proxy_QN, gold_QN, np.array([1])) for proxy_QN in tables]
    files.write_start(np.stack([proxy_1Q[0] for proxy_1Q, _ in start]), start[0][1][0])


def gold_scores(scored: GoldScored, out: Path) -> None:
    """Of gold as its own proxy there is nothing to score: the pool has gold's scores, and gold its calibration."""
    files, gold_QN = Scores(out), scored.gold_table()
    scored.write_rows()
    files.write_calibrations([Calibrated(scored.run.gold_calibration(), 0.0)])
    start_1Q, _ = best_of_n(gold_QN, gold_QN, np.array([1]))
    files.write_start(start_1Q, start_1Q[0])


def ensemble_scores(scored: EnsembleScored, out: Path) -> None:
    """An ensemble over RM sizes: their calibrated scores combined, and calibrated again."""
    files, raw_QN = Scores(out), scored.combined(scored.tables())
    scored.write_rows()
    gold_gap_C = gold_gaps(scored.run, scored.parts[0].proxies.validation().gold)
    found = calibrated(scored.run, raw_QN, scored.combined(scored.on_validation()), gold_gap_C)
    files.write_calibrations([found])
    start_1Q, gold_1Q = best_of_n(found.calibration(raw_QN), scored.gold_table(), np.array([1]))
    files.write_start(start_1Q, gold_1Q[0])


def label_scores(labelled: Labelled, out: Path) -> None:
    """Of labels without an RM there is nothing to score: what is known of them, and where gold's curves begin."""
    files, gold_QN = Scores(out), labelled.gold_table()
    labelled.write_rows()
    start_1Q, _ = best_of_n(gold_QN, gold_QN, np.array([1]))
    no_proxy_MQ = np.full((len(labelled.files.rows()), len(gold_QN)), np.nan)
    files.write_start(no_proxy_MQ, start_1Q[0])


def score_pool(scored: Scored, out: Path, params: Params) -> list[np.ndarray]:
    """Raw scores f64[Q, N] of every RM; a program scores one prompt's draws with all of them."""
    run, files, samples = scored.run, Scores(out), scored.samples
    e = run.experiment
    score = partial(scoring.score_n, run.rm(scored.shape), chunk=min(e.bon.chunk, e.bon.draws))
    reader = run.reader(scored.proxies_stage, scored.shape)

    @jax.jit
    def every_member(params: Params, *rest: jax.Array) -> jax.Array:
        return jax.lax.map(lambda one: score(one, *rest), params)

    def make(q: int) -> dict[str, np.ndarray]:
        draws = samples.draws(q)
        rows = (samples.prompts.tokens[q], samples.prompts.mask[q], draws.tokens, draws.mask)
        with log.timed("score"):
            return {"raw": hosts.fetch(every_member(params, *reader.rows(*rows)))}

    log = Log(out, scored.name.replace("/", " "), e.bon.prompts, "prompt")
    tables = [part["raw"] for part in parts(files.parts, e.bon.prompts, make, log)]
    return [np.stack([table[m] for table in tables]).astype(np.float64) for m in range(len(tables[0]))]


def calibrate(
    scored: Scored, raw_M: list[np.ndarray], params: Params, main: list[Calibrated] | None
) -> list[Calibrated]:
    """Every reward's calibration: the mean on the initial policy's samples is 0; the unit is where sigmoid(gap) fits
    gold's soft labels best, in gold's standard deviations. `main`: calibrations on the main policy's pool, whose zero
    is kept so that policies can be compared."""
    held = scored.proxies.validation()
    gold_gap_C = gold_gaps(scored.run, held.gold)
    pairs_M = [held.scores[m] for m, _ in scored.singles] + averaged_on_validation(scored, params)
    out: list[Calibrated] = []
    for i in range(len(scored.rows())):
        done = [found.calibration for found in out]
        raw_QN, pairs_C2 = (before_calibration(scored, tables, done) for tables in (raw_M, pairs_M))
        found = calibrated(scored.run, raw_QN, pairs_C2, gold_gap_C)
        if main:
            shift = main[scored.singles[i][0]].calibration.shift
            found = found._replace(calibration=found.calibration._replace(shift=shift))
        out.append(found)
    return out


def gold_gaps(run: Run, gold_C2: np.ndarray) -> np.ndarray:
    """By how much gold prefers the first response of every comparison, f64[C], in logits."""
    gold = run.gold_calibration()(gold_C2)
    return (gold[:, 0] - gold[:, 1]) * run.gold_logits


def calibrated(run: Run, raw_QN: np.ndarray, pairs_C2: np.ndarray, gold_gap_C: np.ndarray) -> Calibrated:
    """The calibration of one reward, from its scores of the pool and of the held-out comparisons."""
    logits, gap_C = run.gold_logits, pairs_C2[:, 0] - pairs_C2[:, 1]
    scale = soft_label_scale(gap_C, gold_gap_C) / logits
    error = metrics.calibration_error(gap_C * scale * logits, 1 / (1 + np.exp(-gold_gap_C)))
    return Calibrated(Calibration(float(raw_QN.mean()), scale), error)


def before_calibration(scored: Scored, raw_M: list[np.ndarray], done: list[Calibration]) -> np.ndarray:
    """What the reward after those that are `done` scores, in its own unit."""
    if len(done) < len(scored.singles):
        return raw_M[len(done)]
    return list(scored.calibrated(raw_M, [*done, Calibration(0.0, 1.0)]))[-1]


def averaged_on_validation(scored: Scored, params: Params) -> list[np.ndarray]:
    """Scores f32[C, 2] of the held-out comparisons by the RMs that were averaged from others."""
    run, averages = scored.run, scored.averaged()
    if not averages:
        return []
    held = run.held_out_comparisons(scored.proxies_stage, scored.shape)
    flat = (held.tokens.reshape(-1, held.tokens.shape[-1]), held.mask.reshape(-1, held.mask.shape[-1]))
    rm, first = run.rm(scored.shape), len(scored.singles)
    chunk = run.experiment.bon.chunk
    return [
        bulk_scoring.score_all(rm, pick(params, first + i), *flat, chunk).reshape(-1, 2) for i in range(len(averages))
    ]
