"""What a run's files say, as tables: curves, reward models, judgements along the path, PPO's health. Ends in `fits`."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rmo.analysis import scaling
from rmo.analysis.curve import COLUMNS, Curve, from_prompts, to_rows
from rmo.claims import claim, registry
from rmo.claims.evidence import Evidence
from rmo.experiment import audit
from rmo.experiment.run import Run, stage_name
from rmo.runtime.files import read_json, read_npz, write_csv, write_json
from rmo.tracking.jsonl import Log

KEYS = ["method", "rm_params", "rm_comparisons", "variant", "policy_params", "kl_coef", "seed"]
RM_COLUMNS = [*KEYS[1:4], "seed", "steps", "validation_loss", "validation_accuracy", "calibration_error"]
PATH_COLUMNS = [*KEYS, "step_or_n", "kl", "accuracy", "confidence", "support", "kl_given"]
PPO_COLUMNS = [
    *KEYS, "step", "kl", "kl_k1", "kl_k3", "proxy", "gold", "entropy", "length", "unfinished", "kl_efficiency",
    "clip_fraction", "approx_kl", "explained_variance", "critic_loss", "sampler_gap", "first_ratio",
]  # fmt: skip


def members(
    run: Run, stages: Iterable[str] = ()
) -> Iterator[tuple[str, int, dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray], int]]:
    """(stage, member m, what identifies it, its stage's arrays, the arrays of best-of-n with the same policy and
    proxy, the member's place in those) of every best-of-n and PPO member of the run, or of some stages."""
    for name in stages or run.stages:
        if not name.startswith(("bon/", "ppo/")):
            continue
        info, arrays = read_json(run.path(name) / "info.json"), read_npz(run.path(name) / "curve.npz")
        base, places = arrays, list(range(len(info["members"])))
        if name.startswith("ppo/"):
            base = read_npz(run.path(info["base"]) / "curve.npz")
            there = read_json(run.path(info["base"]) / "info.json")["proxies"]
            places = [there.index(m) for m in info["proxies"]]
        for m, row in enumerate(info["members"]):
            meta = {
                "rm_params": info["params"]["non_embedding"], "rm_comparisons": row["comparisons"],
                "policy_params": info["policy"]["non_embedding"], "kl_coef": row.get("kl_coef"), "seed": row["seed"],
                "variant": row["variant"],
            }  # fmt: skip
            yield name, m, meta, arrays, base, places[m]


def load_curves(run: Run, stages: Iterable[str] = ()) -> list[Curve]:
    """Every curve of the run, or of some stages, with its scores per prompt, each prompt centred on its initial
    policy's mean there.

    Averages over prompts are what they were (calibration centred them), but a prompt's own baseline is no longer
    counted as noise: at n = 1 nothing is uncertain, and every bootstrap draw passes through 0 there. Another policy
    is centred on its own start (paper Fig. 23); where it starts is in policies.json.
    """
    out = []
    for name, m, meta, arrays, base, place in members(run, stages):
        start = {n: base[n][place, :1] for n in ("proxy", "gold")}
        if name.startswith("bon/"):
            tables = [arrays[n][m] - start[n] for n in ("proxy", "gold")]
            curve = from_prompts("bon", arrays["n"], arrays["kl"], *tables, **meta)
            given_KQ = arrays["kl_given"][m]
            out.append(dataclasses.replace(curve, kl_given=given_KQ.mean(-1), kl_given_KQ=given_KQ))
        else:
            keep = arrays["fresh"][:, m]
            tables = [arrays[n][keep, m].astype(np.float64) - start[n] for n in ("proxy", "gold")]
            kl = arrays["kl"][keep, m].mean(-1, dtype=np.float64)
            out.append(from_prompts("ppo", arrays["step"][keep, m], kl, *tables, **meta))
    return out


def reward_models(run: Run) -> list[dict[str, Any]]:
    """One row per proxy: loss and accuracy on held-out prompts; calibration error where it was calibrated."""
    out = []
    for name in run.stages:
        if name.startswith("proxies/"):
            info = read_json(run.path(name) / "info.json")
            scored = name.replace("proxies/", "bon/")
            errors = read_json(run.path(scored) / "calibration.json") if scored in run.stages else []
            for m, row in enumerate(info["members"]):
                error = errors[m]["calibration_error"] if errors else None
                meta = {"rm_params": info["params"]["non_embedding"], "rm_comparisons": row["comparisons"]}
                out.append({**row, **meta, "calibration_error": error})
    return out


def paths(run: Run) -> list[dict[str, Any]]:
    """How each RM judges pairs of the optimised policy's own samples, point by point along its path."""
    out = []
    for name, m, meta, arrays, _, _ in members(run):
        if name.startswith("bon/"):
            for k, n in enumerate(arrays["n"]):
                row = {
                    key: float(arrays[key][m, k].mean()) for key in ("accuracy", "confidence", "support", "kl_given")
                }
                out.append({"method": "bon", **meta, "step_or_n": int(n), "kl": float(arrays["kl"][k]), **row})
        else:
            for k in np.flatnonzero(arrays["fresh"][:, m]):
                row = {key: float(arrays[key][k, m].mean()) for key in ("kl", "accuracy", "confidence", "support")}
                out.append({"method": "ppo", **meta, "step_or_n": int(arrays["step"][k, m]), **row})
    return out


def ppo_health(run: Run) -> list[dict[str, Any]]:
    """One row per PPO read. KL efficiency: proxy gain over best-of-n's at the same KL, where best-of-n reaches it."""
    out = []
    for name, m, meta, arrays, base, place in members(run):
        if not name.startswith("ppo/"):
            continue
        gain = lambda x: x.mean(-1) - base["proxy"][place, 0].mean()  # noqa: B023, E731
        same = np.interp(arrays["kl"][:, m].mean(-1), base["kl"], gain(base["proxy"][place]), right=np.nan)
        efficiency = np.where(same > 0.05, gain(arrays["proxy"][:, m]) / np.where(same > 0.05, same, 1), np.nan)
        for k in np.flatnonzero(arrays["fresh"][:, m]):
            row = {"method": "ppo", **meta, "step": int(arrays["step"][k, m]), "kl_efficiency": float(efficiency[k])}
            for column in PPO_COLUMNS:
                if column in arrays and arrays[column].ndim == 3:
                    row[column] = float(arrays[column][k, m].mean())
                elif f"train_{column}" in arrays:
                    row[column] = float(arrays[f"train_{column}"][k, m])
            out.append(row)
    return out


def policies(run: Run) -> list[dict[str, Any]]:
    """Each initial policy: its size, held-out loss, and mean gold per prompt in standard deviations of the main one."""
    e, calibration, out = run.experiment, run.gold_calibration(), []
    for policy in range(len(e.policies)):
        draws = run.path(stage_name("samples", policy, e)) / "draws"
        pools = [read_npz(draws / f"{q:05d}.npz")["gold"].astype(np.float64) for q in range(e.bon.prompts)]
        info = read_json(run.path(stage_name("sft", policy, e)) / "info.json")
        out.append({
            "policy_params": info["params"]["non_embedding"], "held_out_loss": info["held_out_loss"],
            "gold_per_prompt": [float(calibration(pool).mean()) for pool in pools],
        })  # fmt: skip
    return out


def fits(run: Run, out: Path) -> None:
    """Everything computed from the run as small files: curves.csv, coefficients.json, claims.json, and the tables."""
    f = run.experiment.fits
    curves, rms, starts = load_curves(run), reward_models(run), policies(run)
    write_csv(out / "curves.csv", COLUMNS, [row for curve in curves for row in to_rows(curve)])
    write_csv(out / "reward_models.csv", RM_COLUMNS, rms)
    write_csv(out / "paths.csv", PATH_COLUMNS, paths(run))
    write_csv(out / "ppo.csv", PPO_COLUMNS, ppo_health(run))
    write_json(out / "policies.json", starts)
    write_json(out / "nested.json", nested(run))
    write_json(out / "coefficients.json", scaling.summarise(curves, f.bootstrap, f.level, f.min_d_ppo))
    gold = {row["policy_params"]: np.array(row["gold_per_prompt"]) for row in starts}
    evidence = Evidence(curves, rms, gold, f.bootstrap, min_d_ppo=f.min_d_ppo)
    log = Log(out, "claims", len(registry.CLAIMS), "claim")
    verdicts = []
    for c in registry.CLAIMS:
        verdicts.append(claim.judge_one(c, evidence, f.level))
        log.bar.to(len(verdicts))
    log.close()
    write_json(out / "claims.json", verdicts)
    write_json(out / "gold.json", audit.audit(run))


def nested(run: Run, prompts: int = 6) -> list[dict[str, Any]]:
    """Paper Table 2: for the first prompts, the best of the first n draws at growing n against the first seed of every
    RM of the main recipe."""
    out, recipe = [], run.experiment.proxies.sweeps[0].recipes[0]
    for name in run.stages:
        if not name.startswith("bon/"):
            continue
        info, arrays = read_json(run.path(name) / "info.json"), read_npz(run.path(name) / "curve.npz")
        first = info["members"][0]
        if (first["comparisons"], first["variant"]) != (recipe.comparisons, recipe.variant):
            continue
        for q in range(min(prompts, run.experiment.bon.prompts)):
            for j, n in enumerate(arrays["nested_n"]):
                out.append({
                    "rm": name.removeprefix("bon/"), "rm_params": info["params"]["non_embedding"],
                    "policy_params": info["policy"]["non_embedding"], "prompt": q, "n": int(n),
                    "draw": int(arrays["nested"][0, j, q]), "proxy": float(arrays["nested_proxy"][0, j, q]),
                    "gold": float(arrays["nested_gold"][0, j, q]),
                })  # fmt: skip
    return out
