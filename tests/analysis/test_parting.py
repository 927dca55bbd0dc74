"""Where gold parts from what it learned from."""

import numpy as np
import pytest

from rmo.analysis.curve import from_prompts
from rmo.analysis.curve_id import CurveId
from rmo.analysis.parting import parting

KL = np.linspace(0, 3, 24) ** 2  # the grid itself, so that nothing lies between points
PROMPTS = 40


def made(gold_K, apart_K, seeds=3, noise=0.1):
    """Curves whose noise differs by seed and prompt, and how far the annotator lies above gold."""
    rng = np.random.default_rng(0)
    curves, apart = [], []
    for seed in range(seeds):
        id = CurveId(method="ppo", rm_params=10, rm_comparisons=100, policy_params=10, seed=seed)
        gold_KQ = np.asarray(gold_K)[:, None] + noise * rng.normal(size=(len(KL), PROMPTS))
        curves.append(from_prompts(id, np.arange(len(KL)), KL, gold_KQ, gold_KQ))
        apart.append(np.asarray(apart_K)[:, None] + noise * rng.normal(size=(len(KL), PROMPTS)))
    return curves, apart


def test_it_looks_only_as_far_as_golds_peak():
    gold_K = 2 - np.abs(np.sqrt(KL) - KL[12] ** 0.5)
    apart_K = np.where(np.arange(24) > 14, -3.0, 0.0)  # far apart, but after the peak
    found = parting(*made(gold_K, apart_K, noise=1e-3), 20, 0.95)
    assert found.peak_kl == pytest.approx(KL[12])
    assert abs(found.gap) < 1e-3
    assert found.gap_interval[0] < found.gap < found.gap_interval[1]


def test_where_they_part_and_by_how_much():
    apart_K = np.where(np.arange(24) >= 7, -0.5, 0.0) - 0.5 * (np.arange(24) == 9)
    found = parting(*made(np.sqrt(KL), apart_K, noise=0.02), 20, 0.95)
    assert found.peak_kl == pytest.approx(KL[23])
    assert found.parted_kl is not None
    assert found.parted_kl <= KL[7]
    assert found.gap == pytest.approx(-1.0, abs=0.02)
    assert found.gap_kl == pytest.approx(KL[9])
    assert found.gap_interval[1] < -0.9


def test_without_a_difference_they_part_nowhere():
    curves, _ = made(np.sqrt(KL), np.zeros(24))
    found = parting(curves, [np.zeros((24, PROMPTS))] * 3, 20, 0.95)
    assert (found.gap, found.parted_kl) == (0, None)


def test_the_difference_covers_zero_as_often_as_it_says():
    """The interval leaves out 0 in one of twenty experiments where gold and annotator agree but for noise of seeds and
    prompts, which is the same at all KLs here."""
    rng, out = np.random.default_rng(1), 0
    curves, _ = made(np.sqrt(KL), np.zeros(24))
    for _ in range(400):
        prompt_Q, flat_K1 = rng.normal(size=PROMPTS), np.ones((24, 1))
        apart = [flat_K1 * (seed + prompt_Q + rng.normal(size=PROMPTS)) for seed in 0.2 * rng.normal(size=3)]
        low, high = parting(curves, apart, 2, 0.95).gap_interval
        out += not low <= 0 <= high
    assert out / 400 == pytest.approx(0.05, abs=3 * (0.05 * 0.95 / 400) ** 0.5)
