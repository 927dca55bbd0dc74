"""What DPO, IPO and SLiC minimise: numbers by hand, and the optimum of a bandit whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from rmo.methods.direct.door import NAMES
from rmo.methods.direct.losses import LOSSES, direct, pair_loss

BY_HAND = {  # at margins 0, 2, -1: -log sigmoid(x), (x - 1)^2, max(0, 1 - x)
    "dpo": (np.log(2), np.log1p(np.exp(-2)), np.log1p(np.exp(1))),
    "ipo": (1.0, 1.0, 4.0),
    "slic": (1.0, 0.0, 2.0),
}


def place(name: str) -> jax.Array:
    return jnp.int32(list(LOSSES).index(name))


def test_the_door_knows_every_loss():
    assert tuple(LOSSES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_losses_by_hand(name):
    np.testing.assert_allclose(pair_loss(place(name), jnp.array([0.0, 2.0, -1.0])), BY_HAND[name], rtol=1e-6)


def test_margin_accuracy_and_means_by_hand():
    """Two pairs of log-ratios at beta 0.5: margins 0.5 * 1.5 = 0.75 and 0.5 * -0.2 = -0.1."""
    loss, found = direct(place("dpo"), jnp.float32(0.5), jnp.array([[1.0, -0.5], [0.2, 0.4]]))
    assert loss == pytest.approx((np.log1p(np.exp(-0.75)) + np.log1p(np.exp(0.1))) / 2, rel=1e-6)
    expected = {"margin": 0.325, "accuracy": 0.5, "preferred": 0.6, "other": -0.05}
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-5)
    assert direct(place("dpo"), jnp.float32(0.5), jnp.zeros((3, 2)))[1]["accuracy"] == 0.5  # all tied


@pytest.mark.parametrize(("name", "slope"), [("dpo", -0.5), ("ipo", -2.0), ("slic", -1.0)])
def test_at_the_reference_the_gradient_over_beta_is_one_for_every_beta(name, slope):
    """g'(0) is -1/2, -2, -1: a pair's preferred response is pulled up by it times beta, the other pushed down."""
    grad = jax.grad(lambda x, beta: direct(place(name), beta, x)[0])
    for beta in (0.01, 0.1, 2.0):
        found = grad(jnp.zeros((2, 2)), jnp.float32(beta))
        np.testing.assert_allclose(found / beta, [[slope / 2, -slope / 2]] * 2, rtol=1e-6)


def test_slic_leaves_pairs_alone_beyond_its_margin():
    grad = jax.grad(lambda x: direct(place("slic"), jnp.float32(0.5), x)[0])
    np.testing.assert_allclose(grad(jnp.array([[3.0, 0.0], [1.0, 0.0]])), [[0, 0], [-0.25, 0.25]])  # margins 1.5, 0.5


# A bandit: responses i with reference probabilities q, pairs drawn from `drawn`, labelled by Bradley-Terry.
Q = np.array([0.4, 0.3, 0.2, 0.1])
REWARD = np.array([0.0, 1.0, -0.5, 2.0])
WINS = 1 / (1 + np.exp(REWARD[None] - REWARD[:, None]))  # that i is preferred to j
DRAWN = {"by the reference": Q, "evenly": np.full(4, 0.25)}


def optimum(name: str, beta: float, drawn: np.ndarray) -> np.ndarray:
    """The policy that minimises the exact expected loss over pairs."""
    i, j = (x.ravel() for x in np.indices((4, 4)))
    weight = (drawn[i] * drawn[j] * WINS[i, j]).tolist()

    def loss(logits: jax.Array) -> jax.Array:
        ratio = jax.nn.log_softmax(logits) - jnp.log(jnp.asarray(Q))
        each = pair_loss(place(name), jnp.asarray(beta) * (ratio[i] - ratio[j]))
        return jnp.sum(jnp.asarray(weight) * each)

    with jax.enable_x64(True):
        found = minimize(jax.jit(jax.value_and_grad(loss)), np.log(Q), jac=True, method="BFGS", options={"gtol": 1e-9})
    return np.exp(found.x) / np.exp(found.x).sum()


@pytest.mark.parametrize("drawn", DRAWN.values(), ids=DRAWN)
@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_dpos_optimum_is_the_exponential_tilt_of_the_reference(beta, drawn):
    """Whatever pairs are drawn (Rafailov et al. 2023, eq. 4): q exp(reward / beta), normalised."""
    tilt = Q * np.exp(REWARD / beta)
    np.testing.assert_allclose(optimum("dpo", beta, drawn), tilt / tilt.sum(), atol=1e-6)


@pytest.mark.parametrize("drawn", DRAWN.values(), ids=DRAWN)
@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_ipos_optimum_tilts_by_how_often_a_response_wins(beta, drawn):
    """q exp(p / tau), normalised, with tau = beta / 2 and p_i the chance that i beats what is drawn (Azar et al. 2023,
    eq. 7): unlike DPO's it stays finite where a response always wins."""
    tilt = Q * np.exp(2 * (WINS @ drawn) / beta)
    np.testing.assert_allclose(optimum("ipo", beta, drawn), tilt / tilt.sum(), atol=1e-6)
