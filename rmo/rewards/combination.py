"""Ways to make one reward of several RMs, by name. A new one is a `Combination`, registered here or in a file of yours.

Scores of RMs are calibrated (rewards/calibration.py) before they are combined, so that they are in one unit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import jax
import jax.numpy as jnp

from rmo.models.transformer import Params


@dataclass(frozen=True)
class Combination:
    """How K reward models become one: by their scores, or by their parameters."""

    name: str
    source: str
    # Calibrated scores f[K, ...] and a coefficient -> one score f[...]. None: RMs are combined by their parameters.
    scores: Callable[[jax.Array, float], jax.Array] | None = None
    # Parameters with a leading axis K -> those of one RM, whose own scores are calibrated afresh.
    params: Callable[[Params], Params] | None = None
    divides: bool = False  # by the coefficient, which then must be positive


_COMBINATIONS: dict[str, Combination] = {}


def register(combination: Combination) -> Combination:
    """Make a combination known under its name.

    Raises:
      ValueError: it combines neither scores nor parameters, or both.
    """
    if (combination.scores is None) == (combination.params is None):
        raise ValueError(f"{combination.name}: give one of scores and params")
    _COMBINATIONS[combination.name] = combination
    return combination


def find(name: str) -> Combination:
    """The combination of a name.

    Raises:
      ValueError: there is none; says which there are.
    """
    if name not in _COMBINATIONS:
        raise ValueError(f"no way to combine RMs is called {name!r}: use one of {', '.join(_COMBINATIONS)}")
    return _COMBINATIONS[name]


def check(name: str, coefficient: float) -> Combination:
    """The combination of a name, which can take this coefficient.

    Raises:
      ValueError: there is no such combination, or it divides by the coefficient, which is 0.
    """
    found = find(name)
    if found.divides and not coefficient > 0:
        raise ValueError(f"coefficient is {coefficient:g}: {name} divides by it, so give a positive one")
    return found


def library(scores_K: jax.Array) -> ModuleType:
    """jax.numpy of what a program computes, numpy of tables on the host, which keep their precision."""
    return scores_K.__array_namespace__()


def mean(scores_K: jax.Array, coefficient: float) -> jax.Array:
    return scores_K.mean(axis=0)


def worst_case(scores_K: jax.Array, coefficient: float) -> jax.Array:
    return scores_K.min(axis=0)


def uncertainty_penalised(scores_K: jax.Array, coefficient: float) -> jax.Array:
    """The mean less `coefficient` times the population variance over RMs."""
    return scores_K.mean(axis=0) - coefficient * scores_K.var(axis=0)


def median(scores_K: jax.Array, coefficient: float) -> jax.Array:
    """Of an even number the mean of the two in the middle."""
    return library(scores_K).median(scores_K, axis=0)


def mean_less_deviation(scores_K: jax.Array, coefficient: float) -> jax.Array:
    """The mean less `coefficient` times the population standard deviation over RMs."""
    return scores_K.mean(axis=0) - coefficient * scores_K.std(axis=0)


def pessimistic(scores_K: jax.Array, coefficient: float) -> jax.Array:
    """-b log E exp(-r / b), the expectation over RMs and b the coefficient: the least mean reward of any reweighting of
    the RMs, at a price of b per nat. Between the worst case (b to 0) and the mean (b to infinity), near which it is the
    mean less var / 2b."""
    xp, least = library(scores_K), scores_K.min(axis=0, keepdims=True)
    return least[0] - coefficient * xp.log(xp.exp((least - scores_K) / coefficient).mean(axis=0))


def spread(scores_K: jax.Array) -> jax.Array:
    """How far K reward models are apart: the population standard deviation of their calibrated scores."""
    return scores_K.std(axis=0)


def average_params(params_K: Params) -> Params:
    """Parameters averaged in float32, heads included."""
    return jax.tree.map(lambda x: jnp.mean(x, axis=0, dtype=jnp.float32).astype(x.dtype), params_K)


register(Combination("mean", "Coste et al. 2023, section 3", scores=mean))
register(Combination("worst_case", "Coste et al. 2023, section 3: WCO", scores=worst_case))
register(Combination("uncertainty_penalised", "Coste et al. 2023, section 3: UWO", scores=uncertainty_penalised))
register(Combination("median", "Eisenstein et al. 2023, section 5", scores=median))
register(
    Combination("mean_less_deviation", "Eisenstein et al. 2023, section 5: mean minus std", scores=mean_less_deviation)
)
PESSIMISTIC = (
    "distributional pessimism, arXiv 2606.09073; the entropic certainty equivalent of Ben-Tal and Teboulle 1986"
)
register(Combination("pessimistic", PESSIMISTIC, scores=pessimistic, divides=True))
register(Combination("weight_averaged", "Rame et al. 2024: WARM", params=average_params))
