import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo import config
from rmo.models import scoring, transformer
from rmo.models.metrics import token_logps
from rmo.models.sampling import AT_ONCE, choose, group_size, join, response_stats, sample, sample_n

SHAPES = {
    "rotary": config.Model(width=16, layers=2, heads=4),
    "learned": config.Model(width=16, layers=1, heads=2, positions="learned"),
    "grouped": config.Model(width=32, layers=2, heads=4, kv_heads=2),
}
WINDOWED = config.Model(width=16, layers=2, heads=4, kv_heads=2, window=4, attention_cap=5.0)
P, R, V, EOS = 5, 7, 11, 2


@pytest.fixture(params=[*SHAPES, "rotary as large models"])
def lm(request, monkeypatch):
    """A model and its parameters; large models scan over stacked layers where small ones are written out."""
    name, _, large = request.param.partition(" ")
    if large:
        monkeypatch.setattr(transformer, "UNROLLED", 0)
        monkeypatch.setattr(transformer, "WRITTEN_OUT", 0)
    module = transformer.LanguageModel(SHAPES[name], V, P + R)
    return module, transformer.init(module, jax.random.key(0))


def prompts(batch):
    tokens = jax.random.randint(jax.random.key(1), (batch, P), 3, V)
    return tokens, jnp.arange(P)[None] >= (jnp.arange(batch) % 4)[:, None]


def keys(batch, seed=2):
    return jax.random.split(jax.random.key(seed), batch)


def test_sampler_logps_equal_teacher_forcing(lm):
    module, params = lm
    tokens, mask = prompts(16)
    out = sample(module, params, tokens, mask, keys(16), R, EOS)
    stats = response_stats(module, params, tokens, mask, out.tokens, out.mask)
    np.testing.assert_allclose(stats["logps"] * out.mask, out.logps, atol=2e-5)
    lengths = np.asarray(out.mask.sum(1))
    assert lengths.min() < R == lengths.max()  # some ended, some ran out of room
    for row, length in zip(np.asarray(out.tokens), lengths, strict=True):
        assert EOS not in row[: length - 1]
        assert length == R or row[length - 1] == EOS  # EOS kept and counted
        assert (row[length:] == 0).all()


def test_shared_prefix_draws_equal_single_draws(lm):
    """sample_n's draw j is what sample gives for the same key, whatever the chunk."""
    module, params = lm
    tokens, mask = prompts(2)
    key = jax.random.key(5)
    one = sample_n(module, params, tokens[1], mask[1], key, 8, R, EOS, 8)
    two = sample_n(module, params, tokens[1], mask[1], key, 8, R, EOS, 2)
    row_keys = jax.vmap(lambda j: jax.random.fold_in(key, j))(jnp.arange(8))
    single = sample(module, params, jnp.repeat(tokens[1:], 8, 0), jnp.repeat(mask[1:], 8, 0), row_keys, R, EOS)
    np.testing.assert_array_equal(one.tokens, two.tokens)
    np.testing.assert_array_equal(one.tokens, single.tokens)
    np.testing.assert_allclose(one.logps, single.logps, atol=1e-5)
    assert len(np.unique(np.asarray(one.tokens), axis=0)) > 4


@pytest.mark.parametrize("shape", SHAPES)
def test_separate_layers_decode_the_same(shape, monkeypatch):
    """Small models decode layer by layer, large ones scan over stacked layers: one distribution, one cache."""
    module = transformer.LanguageModel(SHAPES[shape], V, P + R)
    params = transformer.init(module, jax.random.key(0))
    tokens, mask = prompts(16)
    draw = lambda: jax.jit(lambda: sample(module, params, tokens, mask, keys(16), R, EOS))()
    assert transformer.separate_layers(module, params)[0]
    apart = draw()
    monkeypatch.setattr(transformer, "UNROLLED", 0)
    assert not transformer.separate_layers(module, params)[0]
    stacked = draw()
    np.testing.assert_array_equal(apart.tokens, stacked.tokens)
    np.testing.assert_allclose(apart.logps, stacked.logps, atol=1e-5)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("written_out", [True, False])
def test_in_bfloat16_too_the_sampler_draws_from_what_is_scored(monkeypatch, apart, written_out):
    """However layers are compiled: XLA would keep more digits of the stream where it sees several at once."""
    monkeypatch.setattr(transformer, "UNROLLED", 2**27 if apart else 0)
    monkeypatch.setattr(transformer, "WRITTEN_OUT", 2**24 if written_out else 0)
    shape = config.Model(width=32, layers=4, heads=4, positions="learned", dtype="bfloat16")
    module = transformer.LanguageModel(shape, V, P + R)
    params = jax.tree.map(lambda x: 2 * x, transformer.init(module, jax.random.key(0)))
    tokens, mask = prompts(16)
    out = jax.jit(lambda: sample(module, params, tokens, mask, keys(16), R, EOS))()
    stats = jax.jit(lambda: response_stats(module, params, tokens, mask, out.tokens, out.mask))()
    np.testing.assert_allclose(stats["logps"] * out.mask, out.logps, atol=2e-5)


def test_groups_of_a_vocabulary_end_where_devices_do():
    for vocab in (50304, 151936, 128256, 256000, 32000, 8192):
        size = group_size(vocab)
        assert vocab % size == 0
        assert vocab // size % 8 == 0, "a model axis of eight"
        assert size + vocab // size < 1400  # random numbers per token
    assert group_size(50257) == 256  # not divided by any axis


@pytest.mark.parametrize("vocab", [AT_ONCE + 100, AT_ONCE + 128, 8192])
def test_a_large_vocabulary_is_drawn_from_exactly(vocab):
    """By group and then by token: frequencies are those of the softmax, log-probabilities its own, whatever V is."""
    draws = 60_000
    logits = 3 * jax.random.normal(jax.random.key(0), (vocab,))
    logits = logits.at[vocab - 50].set(6.0)  # in the last, shorter group
    tokens, logps = jax.jit(lambda keys: choose(jnp.broadcast_to(logits, (len(keys), vocab)), keys))(keys(draws))
    expected = np.asarray(jax.nn.log_softmax(logits))
    np.testing.assert_allclose(logps, expected[tokens], atol=1e-5)
    assert tokens.max() < vocab
    common = np.exp(expected) * draws > 30
    counts, mean = np.bincount(tokens, minlength=vocab)[common], (np.exp(expected) * draws)[common]
    assert common.sum() > 100
    z = (counts - mean) / np.sqrt(mean)
    assert abs(z).max() < 4.5
    assert (z**2).mean() == pytest.approx(1, abs=0.25)
    cold, _ = choose(jnp.broadcast_to(logits, (8, vocab)) / 1e-7, keys(8))
    assert (cold == jnp.argmax(logits)).all()


def test_temperature_scales_the_distribution_sampled_from(lm):
    module, params = lm
    tokens, mask = prompts(4)
    out = sample(module, params, tokens, mask, keys(4), R, EOS, temperature=0.5)
    logits, _ = transformer.logits(module, params, *join(tokens, mask, out.tokens, out.mask), read=slice(P - 1, -1))
    logits = logits / 0.5
    np.testing.assert_allclose(token_logps(logits, out.tokens) * out.mask, out.logps, atol=5e-5)


def pad(tokens, mask, left, right):
    widths = ((0, 0), (left, right))
    return jnp.pad(tokens, widths), jnp.pad(mask, widths)


def test_scores_do_not_depend_on_batch_padding_or_side():
    shape = SHAPES["rotary"]
    rm = transformer.RewardModel(shape, V, 32)
    params = transformer.init(rm, jax.random.key(0))
    tokens, mask = prompts(6)
    full = jnp.ones_like(mask)
    alone = scoring.score(rm, params, tokens[:1], full[:1])
    together = scoring.score(rm, params, tokens, full)
    np.testing.assert_allclose(alone, together[:1], atol=1e-5)
    for left, right in [(0, 3), (3, 0), (2, 5)]:
        padded = scoring.score(rm, params, *pad(tokens, full, left, right))
        np.testing.assert_allclose(padded, together, atol=1e-5)
    assert scoring.score(rm, params, tokens, full).dtype == jnp.float32


# Half of all pairs at once, the other half with the slow tests: which shapes there are, and whether a kernel serves,
# concerns other lines.
PAIRS = [
    pytest.param(shape, served, id=f"{name}-{'whole' if served else 'shared'}",
                 marks=[pytest.mark.slow] if (i + served) % 2 else [])
    for i, (name, shape) in enumerate([*SHAPES.items(), ("windowed", WINDOWED)]) for served in (False, True)
]  # fmt: skip


@pytest.mark.parametrize(("shape", "served"), PAIRS)
def test_scores_of_one_prompts_responses_are_those_of_whole_sequences(shape, served, monkeypatch):
    """Whether the prompt is read once or with every response; a response without a token scores as its prompt."""
    monkeypatch.setattr(scoring, "kernels_serve", lambda *_: served)
    jax.clear_caches()  # it is no argument
    rm = transformer.RewardModel(shape, V, P + R)
    params = transformer.init(rm, jax.random.key(0))
    (prompt, *_), (there, *_) = prompts(4)[0][3:], prompts(4)[1][3:]
    tokens = jax.random.randint(jax.random.key(7), (8, R), 0, V)
    mask = jnp.arange(R)[None] < jnp.arange(8)[:, None]
    whole = jnp.concatenate([jnp.broadcast_to(prompt, (8, P)), tokens], 1)
    mask_whole = jnp.concatenate([jnp.broadcast_to(there, (8, P)), mask], 1)
    found = scoring.score_n(rm, params, prompt, there, tokens, mask, 4)
    np.testing.assert_allclose(found, scoring.score(rm, params, whole, mask_whole), atol=1e-5)
    assert not there.all()
    assert len(np.unique(np.round(found, 4))) == 8


def test_score_is_read_by_length_even_if_pad_is_a_real_token():
    rm = transformer.RewardModel(SHAPES["rotary"], V, 32)
    params = transformer.init(rm, jax.random.key(0))
    tokens = jnp.array([[3, 4, 0, 5, 0, 0]])  # 0 is pad, and a real token in the middle and at the end
    mask = jnp.array([[True, True, True, True, True, False]])
    values = transformer.values(rm, params, tokens, mask)
    assert float(scoring.score(rm, params, tokens, mask)[0]) == pytest.approx(float(values[0, 4]))
    changed = scoring.score(rm, params, tokens.at[0, 5].set(7), mask)
    assert float(changed[0]) == float(scoring.score(rm, params, tokens, mask)[0])
    other = scoring.score(rm, params, tokens.at[0, 2].set(7), mask)
    assert float(other[0]) != float(changed[0])


def test_causality_and_prompt_attention(lm):
    module, params = lm
    tokens, mask = prompts(1)
    full = jnp.ones_like(mask)
    logits, _ = module.apply({"params": params}, tokens, full)
    later, _ = module.apply({"params": params}, tokens.at[0, -1].set(4), full)
    np.testing.assert_allclose(logits[:, :-1], later[:, :-1], atol=1e-6)
    earlier, _ = module.apply({"params": params}, tokens.at[0, 0].set((tokens[0, 0] + 1) % V), full)
    assert float(jnp.abs(earlier[:, -1] - logits[:, -1]).max()) > 1e-4


def test_counts():
    rm = transformer.RewardModel(config.Model(width=8, layers=1, heads=2), 64, 24)
    counts = transformer.count(transformer.init(rm, jax.random.key(0)))
    # attention 4*64, MLP 2*8*32, norms 3*8, head 9
    assert counts["non_embedding"] == 4 * 64 + 2 * 8 * 32 + 3 * 8 + 9
    assert counts["total"] == counts["non_embedding"] + 64 * 8


def test_bfloat16_keeps_float32_outside():
    shape = config.Model(width=16, layers=1, heads=2, dtype="bfloat16")
    lm = transformer.LanguageModel(shape, V, P + R)
    params = transformer.init(lm, jax.random.key(0))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    tokens, mask = prompts(3)
    logits, cache = lm.apply({"params": params}, tokens, mask)
    assert logits.dtype == jnp.float32
    assert cache.k.dtype == jnp.bfloat16
    rm = transformer.RewardModel(shape, V, P + R)
    assert scoring.score(rm, transformer.init(rm, jax.random.key(0)), tokens, mask).dtype == jnp.float32


@pytest.mark.parametrize(
    "mesh", [pytest.param(None, marks=pytest.mark.slow), 1]
)  # several CPU devices wait for one another when they interpret
def test_the_kernel_for_tpus_computes_the_same(mesh):
    """Interpreted here: values of real tokens and gradients, grouped heads, pads on both sides, alone and on a mesh."""
    from contextlib import nullcontext

    from jax.experimental.pallas import tpu

    from rmo.models import attention
    from rmo.runtime import sharding

    rows, length, heads, width = 2, 2 * attention.BLOCK, 2, 16
    keys = jax.random.split(jax.random.key(0), 4)
    q, g = (jax.random.normal(k, (rows, length, heads, width)) for k in keys[:2])
    k, v = (jax.random.normal(k, (rows, length, heads // 2, width)) for k in keys[2:])
    start, end = np.array([9, 130])[:, None], np.array([256, 200])[:, None]
    real = jnp.asarray((np.arange(length) >= start) & (np.arange(length) < end))
    allowed = jnp.tril(jnp.ones((length, length), bool))[None] & real[:, None]

    def both(q, k, v):
        plain = attention.written_out(q, [(jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2))], allowed, 4.0, 0.0)
        k, v = (jnp.repeat(x, 2, axis=2) for x in (k, v))
        return plain, attention.flash(q, k, v, real, 0.25)

    def loss(which):
        return jax.grad(lambda *a: jnp.sum(both(*a)[which] * g * real[..., None, None]), argnums=(0, 1, 2))

    with tpu.force_tpu_interpret_mode(), jax.set_mesh(sharding.make_mesh(mesh)) if mesh else nullcontext():
        plain, fast = jax.jit(both)(q, k, v)
        np.testing.assert_allclose(plain[real], fast[real], atol=2e-5)
        for a, b in zip(jax.jit(loss(0))(q, k, v), jax.jit(loss(1))(q, k, v), strict=True):
            np.testing.assert_allclose(a, b, atol=5e-5)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
def test_the_kernel_for_gpus_computes_the_same():
    from rmo.models import attention

    keys = jax.random.split(jax.random.key(0), 3)
    q = jax.random.normal(keys[0], (2, 256, 4, 64), jnp.bfloat16)
    k, v = (jax.random.normal(key, (2, 4, 256, 64), jnp.bfloat16) for key in keys[1:])
    allowed = jnp.broadcast_to(jnp.tril(jnp.ones((256, 256), bool)), (2, 256, 256))
    args = q, [(k, v)], allowed, 8.0, 0.0
    np.testing.assert_allclose(attention.attend(*args, True), attention.written_out(*args), atol=3e-2)
