"""From a method's record to curves: each member's points with its identity, counted from the initial policy."""

from dataclasses import replace

import numpy as np

from rmo.analysis.curve import Curve, axis_number, from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.artifacts.run_files import RunFiles, curves_at
from rmo.artifacts.stages import Optimised, Scores
from rmo.methods.bench import JUDGED, SPREAD
from rmo.methods.method import Method
from rmo.runtime.files import Row


def curves(method: Method, optimised: Optimised, scores: Scores) -> list[Curve]:
    """Every member's curve with its scores per prompt, each prompt centred on its initial policy's mean there.

    Averages over prompts are what they were (calibration centred them), but a prompt's own baseline is no longer
    counted as noise: at n = 1 nothing is uncertain, and every bootstrap draw passes through 0 there. Another policy
    is centred on its own start (paper Fig. 23); where it starts is in policies.json.
    """
    record, out = optimised.record, []
    for m, id in enumerate(optimised.ids()):
        keep = record.points(m)
        proxy_KQ, gold_KQ = (x[m, keep].astype(np.float64) for x in (record.proxy, record.gold))
        start_proxy_Q, start_gold_Q = scores.start[0][record.arms[m].reward], scores.start[1]
        if np.allclose(gold_KQ[0], start_gold_Q, rtol=1e-9) and np.allclose(proxy_KQ[0], start_proxy_Q, rtol=1e-9):
            start_proxy_Q, start_gold_Q = proxy_KQ[0], gold_KQ[0]  # the pool itself, as best-of-1: exactly 0
        proxy_KQ, gold_KQ = proxy_KQ - start_proxy_Q, gold_KQ - start_gold_Q
        curve = from_prompts(id, record.step_or_n[m, keep], record.kl[m, keep], proxy_KQ, gold_KQ)
        if record.kl_given is not None:
            given_KQ = record.kl_given[m, keep]
            curve = replace(curve, kl_given=given_KQ.mean(-1), kl_given_KQ=given_KQ)
        if SPREAD in record.judged and np.isfinite(apart_KQ := record.judged[SPREAD][m, keep]).all():
            curve = replace(curve, spread=apart_KQ.mean(-1))
        out.append(curve)
    return out


def path_rows(optimised: Optimised) -> list[Row]:
    """How each reward judges pairs of the optimised policy's own samples, point by point along its path, how far apart
    the RMs of a combined one are on them, and what the annotator says beside gold."""
    record, out = optimised.record, []
    for m, id in enumerate(optimised.ids()):
        for k in record.points(m) if record.judged or record.annotator is not None else ():
            row = {name: float(record.judged[name][m, k].mean()) for name in JUDGED if name in record.judged}
            if SPREAD in record.judged and np.isfinite(record.judged[SPREAD][m, k]).all():
                row[SPREAD] = float(record.judged[SPREAD][m, k].mean())
            if record.kl_given is not None:
                row["kl_given"] = float(record.kl_given[m, k].mean())
            if record.annotator is not None:
                row |= {"gold": float(record.gold[m, k].mean()), "annotator": float(record.annotator[m, k].mean())}
            out.append(
                {**id.cells(), "step_or_n": axis_number(record.step_or_n[m, k]), "kl": float(record.kl[m, k]), **row}
            )
    return out


def diagnostic_rows(method: Method, optimised: Optimised, scores: Scores, frontier: dict[CurveId, Curve]) -> list[Row]:
    """One row per point. KL efficiency: proxy gain over that of the curve in `frontier` with the same RM and policy, at
    the same KL, where that one reaches it."""
    record, out = optimised.record, []
    measured = curves(method, optimised, scores)
    for m, curve in enumerate(measured):
        efficiency = kl_efficiency(curve, frontier.get(curve.id.same_rm))
        for i, k in enumerate(record.points(m)):
            row = {name: float(values[m, k]) for name, values in record.diagnostics.items()}
            proxy, gold = float(record.proxy[m, k].mean()), float(record.gold[m, k].mean())
            point = {
                "step": axis_number(record.step_or_n[m, k]),
                "kl": float(curve.kl[i]),
                "proxy": proxy,
                "gold": gold,
            }
            out.append({**curve.id.cells(), **point, "kl_efficiency": float(efficiency[i]), **row})
    return out


def kl_efficiency(curve: Curve, frontier: Curve | None) -> np.ndarray:
    """Proxy gain relative to another curve's at the same KL, f64[K]; NaN where that is not known or near 0."""
    if frontier is None:
        return np.full(len(curve.kl), np.nan)
    same = np.interp(curve.kl, frontier.kl, frontier.proxy, right=np.nan)
    large = same > 0.05
    return np.where(large, curve.proxy / np.where(large, same, 1), np.nan)


def with_prompts(run: RunFiles) -> list[Curve]:
    """Every curve of a run with its scores per prompt; without them, from curves.csv, where a record is gone."""
    stages = run.optimised() if (run.root / "stages.json").exists() else []
    if not stages or not all((optimised.directory / "record.npz").exists() for _, _, optimised in stages):
        return curves_at(run.root)
    return [c for method, _, one in stages for c in curves(method, one, Scores(run.where[one.scores]))]
