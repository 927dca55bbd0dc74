"""A made-up run whose truth is known: curves, reward models and tables, for figures and pages."""

from collections.abc import Callable, Sequence

import numpy as np

from rmo.analysis import scaling
from rmo.analysis.curve import Curve, from_prompts
from rmo.analysis.curve_id import CurveId, Settings
from rmo.methods.paper import BEST_OF_N, PPO, ROUNDS
from rmo.report.figures.drawing import Files
from tests.helpers.tables import table_of

SIZES = (500, 1000, 5000, 20_000, 100_000)  # parameters of the RMs
DATA = (250, 1000, 2000, 8000, 36_000)  # comparisons; the last is the main number
SMALL, BIG = 20_000, 90_000  # parameters of the policies; the first is the main one
PROMPTS, POINTS, SEEDS = 8, 21, 2
GOLD = 400_000  # parameters of gold, which is its own proxy for every method
GOLD_METHODS = (BEST_OF_N, PPO, "tilt")
RECIPES = ("epochs=4", "flip=0.25", "prompts=500", "prompts=2000", "epochs=4 dropout=0.1")
LARGEST_KL = {PPO: 36.0, ROUNDS: 36.0}  # of other methods 9


def true_gold(id: CurveId, d: np.ndarray) -> np.ndarray:
    """Gold at d = sqrt(KL), in the form of the id's method; less with fewer comparisons."""
    decades = np.log10(max(id.rm_params, 1) / 1000)
    missing = np.log10(DATA[-1] / (id.rm_comparisons or DATA[-1]))
    if id.method in (PPO, ROUNDS):
        form = d * (0.9 - (0.45 - 0.06 * decades) * np.log(np.maximum(d, 1e-9)))
    else:
        form = d * (0.5 + 0.1 * decades - (0.2 - 0.03 * decades) * d)
    return (1 - 0.3 * missing) * form


def made_up(id: CurveId, truth: Callable[[CurveId, np.ndarray], np.ndarray] = true_gold) -> Curve:
    """A curve with a little noise over prompts; its proxy is straight in d."""
    d = np.linspace(0, LARGEST_KL.get(id.method, 9.0) ** 0.5, POINTS)
    kl, rng = d**2, np.random.default_rng(id.seed or 0)
    noise = 0.01 * d[:, None] * rng.normal(size=(1, PROMPTS))
    slope = 0.4 if id.method in (PPO, ROUNDS) else 1.5
    curve = from_prompts(id, np.arange(1, POINTS + 1), kl, slope * d[:, None] + noise, truth(id, d)[:, None] + noise)
    return with_winners(curve) if id.method == BEST_OF_N else curve


def with_winners(curve: Curve) -> Curve:
    """With best-of-n's KL as its winners' probabilities give it: the bound itself."""
    given = np.repeat(curve.kl[:, None], PROMPTS, axis=1)
    return Curve(**{**vars(curve), "kl_given": curve.kl, "kl_given_KQ": given})


def ids() -> list[CurveId]:
    """Everything that the paper varies: RM size, comparisons, policy, KL penalty; and recipes of the RMs."""
    out = []
    for method in (BEST_OF_N, PPO):
        out += [CurveId(method, params, DATA[-1], policy_params=SMALL) for params in SIZES]
        out += [CurveId(method, params, DATA[-1], policy_params=BIG) for params in (SIZES[1], SIZES[-1])]
    out += [CurveId(BEST_OF_N, params, count, policy_params=SMALL) for params in SIZES for count in DATA[:-1]]
    out += [CurveId(PPO, SIZES[1], count, policy_params=SMALL) for count in DATA[1:-1]]
    penalties = [Settings(kl_coef=0.05), Settings(kl_coef=0.2)]
    out += [CurveId(PPO, SIZES[3], DATA[-1], policy_params=SMALL, settings=penalty) for penalty in penalties]
    rounds = [Settings(rounds=2), Settings(rounds=2, data="concatenated")]
    out += [CurveId(ROUNDS, SIZES[1], DATA[-1], policy_params=SMALL, settings=settings) for settings in rounds]
    recipes = [Settings.parse(text) for text in RECIPES]
    out += [
        CurveId(BEST_OF_N, params, 2000, rm_recipe=recipe, policy_params=SMALL)
        for params in SIZES
        for recipe in recipes
    ]
    against_gold = [CurveId(method, GOLD, policy_params=SMALL, rm_combined="gold", seed=0) for method in GOLD_METHODS]
    several = [
        CurveId(method, SIZES[0], DATA[-1], rm_combined=how, policy_params=SMALL)
        for method in (BEST_OF_N, PPO)
        for how in ("mean: mean of 2", "worst: worst_case of 2")
    ]
    return [*(CurveId(**{**vars(id), "seed": seed}) for id in out for seed in range(SEEDS)), *against_gold, *several]


def reward_models() -> list[dict]:
    """A row per RM, as reward_models.csv holds them; more comparisons, less loss."""
    trained = [(params, count, "") for params in (50, *SIZES) for count in DATA]
    trained += [(params, 2000, recipe) for params in SIZES for recipe in RECIPES]
    return [
        {
            "rm_params": params,
            "rm_comparisons": count,
            "rm_recipe": recipe,
            "seed": seed,
            "validation_loss": np.log(2) - 1e-3 * np.log(count) * np.log10(params) - 1e-5 * seed,
            "validation_accuracy": 0.6,
        }
        for params, count, recipe in trained
        for seed in range(SEEDS)
    ]


def files_of(curves: Sequence[Curve]) -> Files:
    """What the files of a run with these curves hold."""
    paths, diagnostics, split = [], {}, []
    for curve in curves:
        for k in range(len(curve.kl)):
            point = {**curve.id.cells(), "step": curve.step_or_n[k], "kl": curve.kl[k]}
            gold = curve.gold[k]
            judged = {"accuracy": 0.6, "confidence": 0.7, "support": 0.6}
            apart = {"spread": 1 + 0.03 * k} if " of 2" in curve.id.rm_combined else {}
            paths.append({**point, **judged, **apart, "gold": gold, "annotator": 0.8 * gold})
            split.append({**point, "gold": gold, **parts("kl", curve.kl[k]), **parts("gold", gold)})
            if curve.method == PPO:
                health = {"clip_fraction": k / POINTS, "entropy": 1.0, "length": 9.0, "explained_variance": 0.5}
                diagnostics.setdefault(PPO, []).append({**point, **health, "kl_efficiency": 0.7})
    return Files(
        curves=list(curves),
        summary=scaling.summarise(curves, draws=20, rank_draws=5),
        reward_models=reward_models(),
        paths=table_of(paths),
        diagnostics={name: table_of(rows) for name, rows in diagnostics.items()},
        starts={SMALL: 0.0, BIG: 0.3},
        experiment={"fits": {"level": 0.95}},
        split=table_of(split),
    )


def parts(what: str, whole: float) -> dict[str, float]:
    """How much of a number is length, words and the rest."""
    shares = {"length": 0.2, "words": 0.5, "rest": 0.3}
    return {f"{what}_{part}": share * whole for part, share in shares.items()}


def whole_run() -> Files:
    """A run with everything that a figure needs."""
    return files_of([made_up(id) for id in ids()])
