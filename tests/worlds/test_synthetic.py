import zlib

import numpy as np
import pytest

from rmo import config
from rmo.worlds import first_edition
from rmo.worlds.synthetic import BOS, EOS, FIRST, REFERENCES, SyntheticWorld
from rmo.worlds.world import PURPOSES, Texts, concatenate


@pytest.fixture(scope="module")
def world():
    return SyntheticWorld(config.World())


@pytest.fixture(scope="module")
def corpus(world):
    return world.corpus(np.random.default_rng(0), 4000)


def test_texts_are_well_formed(world, corpus):
    c = world.c
    lengths = corpus.mask.sum(1)
    assert corpus.tokens.shape == (4000, c.response)
    assert lengths.min() > c.shortest
    assert lengths.max() == c.response
    assert len(np.unique(lengths)) > 4  # responses end at varying lengths
    ended = (corpus.tokens == EOS).any(1)
    assert 0.5 < ended.mean() < 1
    assert (np.take_along_axis(corpus.tokens, lengths[:, None] - 1, 1)[ended, 0] == EOS).all()
    assert ((corpus.tokens == EOS).sum(1) <= 1).all()
    assert (corpus.tokens[~corpus.mask] == 0).all()
    # Prompts: left-padded, bos first.
    starts = corpus.prompt_mask.argmax(1)
    assert corpus.prompt_mask[:, -1].all()
    assert (corpus.prompts[np.arange(4000), starts] == BOS).all()
    assert (corpus.prompts[:, -1] >= FIRST).all()
    assert len(np.unique(starts)) > 1


def test_same_seed_same_world(world, corpus):
    other = SyntheticWorld(config.World())
    np.testing.assert_array_equal(other.corpus(np.random.default_rng(0), 4000).tokens, corpus.tokens)
    first = world.score(corpus)
    REFERENCES.clear()  # else both would share one
    np.testing.assert_array_equal(first, other.score(corpus))
    assert (SyntheticWorld(config.World(seed=1)).score(corpus) != world.score(corpus)).any()


def test_score_is_bounded_and_bad_text_is_worse(world, corpus):
    rng = np.random.default_rng(1)
    good = world.score(corpus)
    broad = world.score(world.broad(rng, corpus))
    for score in (good, broad):
        assert (score >= 0).all()
        assert (score <= 1).all()
    assert broad.mean() < good.mean()
    word = corpus.mask & (corpus.tokens != EOS)
    garbled = np.where(word, rng.integers(FIRST, world.vocab, word.shape), corpus.tokens)
    for bad in (np.where(word, corpus.tokens[:, :1], corpus.tokens), garbled):
        assert world.score(corpus._replace(tokens=bad)).mean() < good.mean() - good.std()


def test_a_manner_runs_through_a_whole_text(world):
    """Half of a text tells of the other half how much it has of what a unigram feature looks at; without manners the
    bigrams alone hardly do. That is what a policy can be steered by."""

    def agreement(w: SyntheticWorld) -> np.ndarray:
        texts = w.corpus(np.random.default_rng(4), 6000)
        long = texts.mask.sum(1) >= 20
        index = np.maximum(texts.tokens[long][:, :20] - FIRST, 0)
        has = np.stack([words[index] for words in w.annotator["unigram"]])
        first, second = has[:, :, :9].mean(2), has[:, :, 10:19].mean(2)
        return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)])

    plain = SyntheticWorld(config.World(manner=1e-9, pair_manner=1e-9))
    assert agreement(world).min() > agreement(plain).max() + 0.1


def test_longer_texts_have_no_higher_rates(world, corpus):
    """Rates, not counts: length by itself moves no feature but length, which has a sweet spot of its own."""
    z, words = world.standardised(corpus), corpus.mask.sum(1)
    with_length = np.array([np.corrcoef(column, words)[0, 1] for column in z.T[: sum(world.kinds)]])
    assert np.abs(with_length).max() < 0.1
    spots = world.sweet_spots
    assert len(spots["optimum"]) == sum(world.kinds) + 1
    assert spots["optimum"][-1] == world.c.length_optimum
    assert world.score(corpus).std() > 0


def test_the_first_edition_is_what_it_was():
    """Texts and scores of the world that earlier results were measured in, to the last bit."""
    world = SyntheticWorld.build(first_edition.FIRST, None)
    texts = world.corpus(np.random.default_rng(0), 500)
    assert zlib.crc32(texts.tokens.tobytes()) == 1826857193
    assert zlib.crc32(texts.prompts.tobytes()) == 1051452395
    assert world.score(texts).sum() == pytest.approx(171.11468175460635, rel=1e-12)
    broad = world.broad(np.random.default_rng(1), texts)
    assert zlib.crc32(broad.tokens.tobytes()) == 819808260
    assert world.score(broad).sum() == pytest.approx(102.36585332611824, rel=1e-12)


def test_sweet_spots_rise_then_fall(world):
    """More words of a unigram feature's set are better up to the optimum, then worse."""
    a, spots = world.annotator, world.sweet_spots
    inside = np.flatnonzero(a["unigram"][0]) + FIRST
    outside = np.flatnonzero(~a["unigram"].any(0)) + FIRST
    r = world.c.response
    rows = np.stack([[inside[0]] * k + [outside[0]] * (r - k) for k in range(r + 1)])
    prompts = np.full((r + 1, world.c.prompt), FIRST)
    texts = Texts(prompts, np.ones_like(prompts, bool), rows, np.ones_like(rows, bool))
    rate = world.features(texts)[:, 0]
    np.testing.assert_allclose(rate, np.arange(r + 1) / r)
    mean, std = world._reference
    value = np.exp(-((((rate - mean[0]) / std[0] - spots["optimum"][0]) / spots["width"][0]) ** 2) / 2)
    top = value.argmax()
    assert abs(top - r * (mean[0] + spots["optimum"][0] * std[0])) <= 0.5
    assert 0 < top < r
    assert (np.diff(value[: top + 1]) > 0).all()
    assert (np.diff(value[top:]) <= 0).all()


def test_features_by_hand():
    world = SyntheticWorld(
        config.World(
            vocab=20, response=8, shortest=2, unigrams=1, conditionals=1, pairs=1, set_share=0.2, pair_share=0.2
        )
    )
    a = world.annotator
    first, second, gap = np.flatnonzero(a["first"][0]) + FIRST, np.flatnonzero(a["second"][0]) + FIRST, a["gap"][0]
    tokens = np.zeros((1, 8), int)
    tokens[0, :4] = first[0]
    tokens[0, gap] = second[0]
    prompt = np.full((1, 6), FIRST + 3)
    mask = np.arange(8)[None] < 4
    f = world.features(Texts(prompt, np.ones((1, 6), bool), tokens, mask))[0]
    words = tokens[0, :4] - FIRST
    assert f[0] == a["unigram"][0][words].sum() / 4
    assert f[1] == a["conditional"][0][world.grammar["question"][3]][words].sum() / 4
    assert f[2] == sum(a["first"][0][words[t]] & a["second"][0][words[t + gap]] for t in range(4 - gap)) / 4
    assert f[3] == 4
    assert f[5] == len(set(words)) / 4


def test_purposes_never_share_a_prompt(world):
    rng = np.random.default_rng(2)
    sets = {p: {row.tobytes() for row in world.prompts(rng, 300, p).tokens} for p in PURPOSES}
    assert all(len(s) == 300 for s in sets.values())
    assert not sets["read"] & sets["optimise"]
    assert not sets["optimise"] & sets["comparisons"]
    assert not sets["read"] & sets["comparisons"]


def test_too_few_prompts_is_said():
    world = SyntheticWorld(config.World(vocab=16, prompt=2, response=6, shortest=2))
    with pytest.raises(config.ConfigError, match="fewer than 500 read prompts"):
        world.prompts(np.random.default_rng(0), 500, "read")


def test_scale_is_a_parameter():
    world = SyntheticWorld(
        config.World(vocab=200, prompt=12, response=24, shortest=12, unigrams=6, conditionals=8, pairs=40)
    )
    texts = world.corpus(np.random.default_rng(0), 200)
    assert world.features(texts).shape == (200, 6 + 8 + 40 + 3)
    assert world.score(texts).std() > 0.01
    assert len(set(world.vocabulary)) == 200


def test_concatenate(corpus):
    both = concatenate([corpus, corpus.rows(slice(5))])
    assert len(both.tokens) == 4005
    tokens, mask = both.sequences()
    assert tokens.shape == mask.shape == (4005, 38)
