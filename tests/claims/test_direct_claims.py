"""H20 to H29: each holds in a made-up run where it is so, and fails where it is not."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from rmo.analysis.curve import Curve, from_prompts
from rmo.analysis.curve_id import NO_RM, CurveId, Settings
from rmo.claims.claim import applies, claims, judge
from rmo.claims.evidence import Evidence

BETAS = (0.02, 0.1, 1.0)
RANKS = {"dpo": (5, 7, 8), "ipo": (2, 6, 1), "slic": (4, 0, 3)}  # of accuracy, where it has nothing to do with gold
Q = 16


@dataclass(frozen=True)
class Truth:
    """What is true of a made-up run."""

    peak: float = 2.0  # sqrt(KL) of the humps without an RM
    quadratic: bool = False  # humps are quadratic in KL, not of PPO's form
    ends: tuple[float, ...] = (5.0, 4.0, 2.5)  # sqrt(KL) at the end, by beta
    ipo_end: float = 0.7  # IPO's end as a share of the others'
    haste: float = 1.5  # updates grow as this power of sqrt(KL)
    bon: float = 3.0  # height of best-of-n's peak
    ppo: float = 1.0  # and of PPO's
    ppo_peak: float = 2.2
    accuracy_of_gold: float = 0.0  # slope of the implicit reward's accuracy on gold
    preferred: float = -3.0
    policy: int = 9_000  # its size; the largest RM has 10,000
    height: float = 1.0  # of the humps without an RM


def hump(d: np.ndarray, peak: float, height: float, quadratic: bool = False) -> np.ndarray:
    """d(a - b log d), or d^2(a - b d^2), with its peak there."""
    if quadratic:
        return height * (2 * (d / peak) ** 2 - (d / peak) ** 4)
    return height * d / peak * (1 + np.log(peak) - np.log(np.maximum(d, 1e-9)))


def curve(id: CurveId, step: np.ndarray, d: np.ndarray, gold: np.ndarray) -> Curve:
    """With a little noise: a seed's own height, and its prompts'."""
    rng = np.random.default_rng([id.seed or 0, len(str(id.settings))])
    table = gold[:, None] * (1 + 0.01 * rng.normal()) + 0.01 * d[:, None] * rng.normal(size=(1, Q))
    proxy = np.full_like(table, np.nan) if id.rm_combined else table
    return from_prompts(id, step, d**2, proxy, table)


def made(t: Truth) -> Evidence:
    curves, rows = [], []
    for seed in range(3):
        for loss, ranks in RANKS.items():
            for beta, end, rank in zip(BETAS, t.ends, ranks, strict=True):
                d = np.linspace(0, end * (t.ipo_end if loss == "ipo" else 1.0), 25)
                settings = Settings(loss=loss, beta=beta)
                id = CurveId("direct", 0, 1000, policy_params=t.policy, rm_combined=NO_RM, seed=seed, settings=settings)
                gold = hump(d, t.peak, t.height, t.quadratic)
                made = curve(id, 200 * (d / d[-1]) ** t.haste, d, gold)
                curves.append(made)
                accuracy = 0.6 + 0.02 * rank + t.accuracy_of_gold * made.gold
                held = {"held_preferred": t.preferred * d / d[-1], "held_accuracy": accuracy}
                rows += [
                    {**id.cells(), "kl": float(kl), **{name: float(x[k]) for name, x in held.items()}}
                    for k, kl in enumerate(made.kl)
                ]
        for params in (100, 10_000):
            n, rl = np.linspace(0, 2.6, 20), np.linspace(0, 6, 30)
            bon = t.bon * (2 * n / 3 - (n / 3) ** 2)
            curves.append(
                curve(CurveId("bon", params, 1000, policy_params=t.policy, seed=seed), np.arange(1, 21), n, bon)
            )
            ppo = hump(rl, t.ppo_peak, t.ppo)
            curves.append(
                curve(CurveId("ppo", params, 1000, policy_params=t.policy, seed=seed), np.arange(30), rl, ppo)
            )
    return Evidence(curves, draws=40, diagnostics={"direct": rows})


CASES = {  # what breaks each
    "H20": {"peak": 8.0},
    "H21": {"haste": 0.5},
    "H22": {"ipo_end": 1.5},
    "H23": {"ends": (2.5, 4.0, 5.0)},
    "H24": {"bon": 1.0},
    "H25": {"ppo": 1.6},
    "H26": {"ppo_peak": 5.9, "ppo": 3.0},
    "H27": {"quadratic": True, "ends": (2.8, 2.7, 2.5), "ipo_end": 1.0},
    "H28": {"accuracy_of_gold": 1.0},
    "H29": {"preferred": 1.0},
}
BY_NAME = {c.name: c for c in claims() if c.name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_a_statement_holds_where_it_is_so_and_fails_where_it_is_not(name):
    for expected, truth in (("holds", Truth()), ("fails", replace(Truth(), **CASES[name]))):
        row = judge(BY_NAME[name], made(truth))
        assert row["verdict"] == expected, (row["statistic"], row["interval"], row["threshold"], row["why"])
        assert row["seeds"] == 3


def test_numbers_by_hand():
    t = Truth()
    found = {name: judge(c, made(t))["statistic"] for name, c in BY_NAME.items()}
    assert found["H23"] == pytest.approx(np.polyfit(np.log10(BETAS), t.ends, 1)[0] * (2 + t.ipo_end) / 3, abs=0.01)
    assert found["H25"] == pytest.approx(0.0, abs=0.05)
    assert found["H29"] == pytest.approx(-3.0)


def test_without_direct_alignment_they_are_not_listed():
    whole = made(Truth())
    without = Evidence([c for c in whole.curves if c.method != "direct"], draws=2)
    assert not any(applies(c, without) for c in BY_NAME.values())
    assert all(applies(c, whole) for c in BY_NAME.values())


@pytest.mark.parametrize(
    ("name", "truth", "why"),
    [
        ("H21", {"peak": 8.0}, "no peak of gold within the data"),
        ("H22", {"peak": 8.0}, "at which DPO's gold turns"),
        ("H24", {"height": -0.5}, "no gain of gold by both"),
        ("H25", {"policy": 200_000}, "RM of about the policy's size"),
        ("H26", {"policy": 200_000}, "RM of about the policy's size"),
    ],
)
def test_nothing_is_said_of_humps_that_are_not_there_and_of_rms_of_another_size(name, truth, why):
    row = judge(BY_NAME[name], made(replace(Truth(), **truth)))
    assert row["statistic"] is None
    assert why in row["why"]
