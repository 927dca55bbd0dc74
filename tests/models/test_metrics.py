import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo.models import metrics
from rmo.training import losses


def random_logits(seed, scale=1.0):
    return scale * jax.random.normal(jax.random.key(seed), (64, 5, 7))


def exact_kl(logits, ref_logits, mask):
    """As reads and rollouts sum it, f32[B]."""
    return jnp.sum(metrics.token_kl(logits, ref_logits) * mask, axis=1)


def test_exact_kl_of_a_policy_with_itself_is_zero():
    logits = random_logits(0)
    assert np.all(np.asarray(exact_kl(logits, logits, jnp.ones((64, 5)))) == 0)


def test_estimators_agree_with_the_exact_kl():
    """k1 and k3 over many samples of one softmax lie within 4 standard errors of the closed form."""
    logits, ref = random_logits(1)[:1, :1], random_logits(2)[:1, :1]
    tokens = jax.random.categorical(jax.random.key(3), logits[0, 0], shape=(40_000, 1))
    tile = lambda x: jnp.broadcast_to(x, (40_000, 1, 7))
    logps, ref_logps = (metrics.token_logps(tile(x), tokens) for x in (logits, ref))
    mask = jnp.ones((40_000, 1))
    exact = float(exact_kl(logits, ref, jnp.ones((1, 1)))[0])
    for estimate in (metrics.kl_k1, metrics.kl_k3):
        x = np.asarray(estimate(logps, ref_logps, mask))
        assert abs(x.mean() - exact) < 4 * x.std() / 200
    assert np.asarray(metrics.kl_k3(logps, ref_logps, mask)).min() >= 0
    assert np.asarray(metrics.kl_k1(logps, ref_logps, mask)).min() < 0  # never clamped


def test_kl_sums_tokens_and_ignores_masked_ones():
    logits, ref = random_logits(4), random_logits(5)
    mask = jnp.arange(5)[None] < jnp.arange(64)[:, None] % 5 + 1
    whole = exact_kl(logits, ref, mask)
    by_hand = sum(exact_kl(logits[:, t : t + 1], ref[:, t : t + 1], jnp.ones((64, 1))) * mask[:, t] for t in range(5))
    np.testing.assert_allclose(whole, by_hand, rtol=1e-5)
    assert float(jnp.abs(whole - exact_kl(logits.at[:, -1].set(9.0), ref, mask))[:4].max()) == 0


@pytest.mark.parametrize(("n", "nats"), [(1, 0.0), (1000, 5.909), (12_500, 8.434), (30_000, 9.309), (60_000, 10.002)])
def test_kl_bon(n, nats):
    assert metrics.kl_bon(n) == pytest.approx(nats, abs=6e-4)


def test_whiten_is_masked():
    x, mask = jnp.array([[1.0, 2.0, 3.0, 1e6]]), jnp.array([[1.0, 1.0, 1.0, 0.0]])
    out = np.asarray(metrics.whiten(x, mask))
    np.testing.assert_allclose(out, [[-1.2247449, 0, 1.2247449, 0]], atol=1e-5)


def test_accuracy_and_calibration():
    assert metrics.accuracy(np.array([[1.0, 0], [0, 1.0], [2.0, 2.0], [3.0, 1.0]])) == pytest.approx(0.625)
    rng = np.random.default_rng(0)
    gap = rng.normal(size=100_000) * 2
    label = rng.random(100_000) < 1 / (1 + np.exp(-gap))
    assert metrics.calibration_error(gap, label) < 0.01
    assert metrics.calibration_error(3 * gap, label) > 0.05


def test_preference_loss():
    assert float(losses.preference(jnp.zeros((8, 2)))) == pytest.approx(np.log(2))
    scores = jax.random.normal(jax.random.key(0), (16, 2))
    gap = np.asarray(scores[:, 0] - scores[:, 1], np.float64)
    assert float(losses.preference(scores)) == pytest.approx(np.log1p(np.exp(-gap)).mean(), rel=1e-5)
    gradient = np.asarray(jax.grad(losses.preference)(scores))
    np.testing.assert_allclose(gradient[:, 0], -1 / (1 + np.exp(gap)) / 16, rtol=1e-4)
    # Antisymmetric under a flip: the gradient of the flipped pair pulls the other way.
    flipped = np.asarray(jax.grad(losses.preference)(scores[:, ::-1]))
    np.testing.assert_allclose(flipped.sum(), 0, atol=1e-6)
    np.testing.assert_allclose(
        float(losses.preference(scores)) - float(losses.preference(scores[:, ::-1])), -gap.mean(), rtol=1e-4
    )


def test_clipped_policy_by_hand():
    old = jnp.zeros((1, 3))
    new = jnp.log(jnp.array([[1.5, 0.5, 1.1]]))
    advantages, mask = jnp.array([[1.0, -1.0, 2.0]]), jnp.ones((1, 3))
    loss, out = losses.clipped_policy(new, old, advantages, mask, 0.2)
    assert float(loss) == pytest.approx(-(1.2 * 1 + 0.8 * -1 + 1.1 * 2) / 3, rel=1e-5)
    assert float(out["clip_fraction"]) == pytest.approx(2 / 3)
    garbage = losses.clipped_policy(new.at[:, 2].set(50.0), old, advantages, mask.at[:, 2].set(0), 0.2)
    assert float(garbage[0]) == pytest.approx(-(1.2 - 0.8) / 2, rel=1e-5)


def test_clipped_value_uses_old_values():
    loss = losses.clipped_value(jnp.array([[2.0]]), jnp.array([[0.0]]), jnp.array([[2.0]]), jnp.ones((1, 1)), 0.2)
    assert float(loss) == pytest.approx(0.5 * 1.8**2)


def test_kl_from_the_winners_probability():
    """Beirami et al.: ten equally likely outputs, n = 64. The truth is the KL of a law in closed form, 2.294 nats; the
    formula says 3.174, the estimate 2.295. With rare outputs it is the formula."""
    outputs, n = 10, 64
    law = np.diff((np.arange(outputs + 1) / outputs) ** n)
    truth = np.sum(law * np.log(np.maximum(law, 1e-300) * outputs))
    estimate = np.sum(law * metrics.kl_bon_given(np.full(outputs, np.log(1 / outputs)), n))
    assert truth == pytest.approx(2.294, abs=1e-3)
    assert estimate == pytest.approx(truth, abs=2e-3)
    assert metrics.kl_bon(n) == pytest.approx(3.174, abs=1e-3)
    for count in (1, 2, 1000):
        np.testing.assert_allclose(
            metrics.kl_bon_given(np.array([-40.0, -200.0]), count), metrics.kl_bon(count), atol=1e-9
        )
    assert metrics.kl_bon_given(np.array(0.0), 100) == pytest.approx(0, abs=1e-6)  # the only output: nothing is chosen


def test_agreement_with_gold():
    gap, gold = jnp.array([2.0, -1.0, 0.5, 0.0]), jnp.array([1.0, 3.0, 0.5, 1.0])
    got = metrics.agreement(gap, gold)
    np.testing.assert_allclose(got["accuracy"], [1, 0, 1, 0.5])
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(got["confidence"], sigmoid(np.array([2.0, 1.0, 0.5, 0.0])), rtol=1e-6)
    np.testing.assert_allclose(got["support"][:3], sigmoid(np.array([1.0, -3.0, 0.5])), rtol=1e-6)
    same = metrics.agreement(gold, gold)  # a perfect RM is accurate and calibrated
    np.testing.assert_allclose(same["confidence"], same["support"])


def test_a_kl_is_never_negative():
    """Two programs that read one policy differ in the last digits of its logits; the sum's rounding is not a KL."""
    logits = jax.random.normal(jax.random.key(0), (64, 32, 64))
    kl = metrics.token_kl(logits, logits + 1e-7 * jax.random.normal(jax.random.key(1), logits.shape))
    assert (kl >= 0).all()
    assert (kl == 0).mean() > 0.1  # where it would have been below
    assert kl.max() < 1e-6
