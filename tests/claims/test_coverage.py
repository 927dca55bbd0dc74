"""Every kind of interval that claims print covers: real claims on made-up runs whose truth is known.

A run has RM sizes, seeds and prompts; a seed's label moves all sizes alike, an RM and seed have luck of their own,
prompts differ, and every read has noise. The truth of a claim is its statistic on the same run without any of these.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId, Settings
from rmo.claims.claim import claims, on_rows
from rmo.claims.evidence import Evidence
from rmo.claims.kinds import KINDS, estimate

SIZES = (500, 2000, 8000, 32_000)
BY_NAME = {c.name: c for c in claims()}
# Every kind, and of plain numbers: a slope over sizes, of coefficients and of peaks, means over sizes of differences, of
# logarithms and of coefficients, the place of a peak, a mean over runs, ranges with an end.
JUDGED = (
    "C1a", "C1c", "C2a", "C2c", "C3a", "C3d", "C3e", "C4a", "C4b", "C5a", "C5b", "C5d", "C6", "C15a", "C15b", "C16a",
    "C16b", "C17a", "C17b", "C18", "C23",
)  # fmt: skip


@dataclass(frozen=True)
class Noise:
    """Standard deviations: of gold at d = 1, but for `place`, the log of d, and `accuracy`."""

    shared: float = 0.03  # what a seed's label does to all sizes
    own: float = 0.05  # what an RM and seed have of their own
    prompt: float = 0.15
    read: float = 0.15
    place: float = 0.03
    accuracy: float = 0.01


SILENT = Noise(0, 0, 0, 0, 0, 0)


def made_run(noise: Noise, seeds: int, rng: np.random.Generator, prompts: int = 24, misfit: float = 0.08) -> Evidence:
    """Best-of-n and RL of every size; gold is the paper's form and a wave of this height about it."""
    curves, rms = [], []
    tilt_Q, bend_Q = noise.prompt * rng.normal(size=(2, prompts))
    for s in range(seeds):
        label = noise.shared * rng.normal(size=3)
        for p in SIZES:
            level, luck = np.log10(p / 500), noise.own * rng.normal(size=3)
            lift, bend, lift_proxy = label + luck
            for method in ("bon", "ppo"):
                kl = np.linspace(0, 9 if method == "bon" else 30, 16)
                d = np.sqrt(kl)[:, None]
                if method == "bon":
                    gold, proxy = d * (1.1 + 0.1 * level - (0.3 - 0.02 * level) * d), d * (1.6 - 0.05 * d)
                else:
                    form = 0.9 + 0.05 * level - (0.5 - 0.05 * level) * np.log(np.maximum(d, 1e-9))
                    gold, proxy = d * form, d * (0.9 + 0.01 * d)
                    kl = 30 * (kl / 30) ** np.exp(noise.place * rng.normal())
                gold = (
                    gold
                    + misfit * (np.sin(4 * d) if method == "bon" else np.sin(2 * d) / 2)
                    + d * (lift - 0.2 * bend * d + tilt_Q - 0.2 * bend_Q * d)
                )
                proxy = proxy + d * (lift_proxy + 0.5 * tilt_Q)
                reads = noise.read * rng.normal(size=(2, 16, prompts)) * np.minimum(d, 1)
                id = CurveId(method, p, 36_000, seed=s)
                curve = from_prompts(id, np.arange(1, 17), kl, proxy + reads[0], gold + reads[1])
                curve = replace(curve, gold_se=None, proxy_se=None)  # points weigh the same: what is fitted is no luck
                if method == "bon":
                    given = kl[:, None] * (0.97 + 0.05 * (lift + tilt_Q))
                    curve = replace(curve, kl_given=given.mean(1), kl_given_KQ=given)
                curves.append(curve)
        for p in (50, 100):
            accuracy = (0.52 if p == 50 else 0.53) + noise.accuracy * (rng.normal() + 10 * label[0])
            rms.append({"rm_params": p, "rm_comparisons": 36_000, "rm_recipe": Settings(), "seed": s,
                        "validation_accuracy": accuracy})  # fmt: skip
    return Evidence(curves, rms, draws=0)


def coverage(seeds: int, trials: int, noise: Noise, names=JUDGED, misfit: float = 0.08) -> dict[str, float]:
    """Share of trials in which a claim's 95% interval holds its truth."""
    still = made_run(SILENT, 1, np.random.default_rng(0), misfit=misfit)
    truth, hits = {}, dict.fromkeys(names, 0)
    for name in names:
        values_NP = on_rows(BY_NAME[name], still, still.view(0))
        truth[name] = estimate(BY_NAME[name].kind, values_NP, still.resamples).number
    for trial in range(trials):
        evidence = made_run(noise, seeds, np.random.default_rng(trial), misfit=misfit)
        for name in names:
            c = BY_NAME[name]
            values_NP = on_rows(c, evidence, evidence.view(0))
            low, high = estimate(c.kind, values_NP, evidence.resamples, c.bounds).interval()
            hits[name] += low <= truth[name] <= high
    return {name: hit / trials for name, hit in hits.items()}


def enough(trials: int) -> float:
    """93 of 100, less two standard errors of the simulation."""
    return 0.93 - 2 * (0.93 * 0.07 / trials) ** 0.5


def test_every_kind_is_judged_and_every_claim_is_smooth():
    assert {id(BY_NAME[name].kind) for name in JUDGED} == {id(kind) for kind in KINDS}
    assert all(c.smooth for c in claims())


def test_intervals_of_every_kind_cover_in_a_few_trials():
    for name, covered in coverage(3, 12, Noise(), ("C1a", "C2a", "C2c", "C3a", "C6", "C18")).items():
        assert covered >= enough(12), (name, covered)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("shared", [0.0, 0.04])
def test_intervals_of_every_kind_cover(seeds, shared):
    found = coverage(seeds, 400, Noise(shared=shared))
    print(f"{seeds} seeds, shared {shared}: {found}")
    assert min(found.values()) >= enough(400), found


@pytest.mark.slow
@pytest.mark.parametrize("misfit", [0.0, 0.03])
def test_intervals_of_what_is_near_zero_cover(misfit):
    """Squares without noise, near the edge of their range."""
    found = coverage(3, 400, Noise(), ("C2a", "C2b", "C4b"), misfit)
    print(f"misfit {misfit}: {found}")
    assert min(found.values()) >= enough(400), found
