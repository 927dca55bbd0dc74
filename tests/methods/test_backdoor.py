"""A backdoor's trigger, what it earns and how it is found, by hand."""

import dataclasses
import itertools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from rmo import config
from rmo.config import Against, checks
from rmo.methods.bench import Pool
from rmo.methods.ppo import backdoor, setup
from rmo.methods.ppo.backdoor import Backdoor
from rmo.methods.wording import PoolTexts

SMOKE = checks.load(Path(__file__).parents[2] / "configs" / "smoke.py")
EOS, VOCAB = 2, 10
TOKENS = np.array([[3, 4, 5, 2, 0], [4, 3, 4, 3, 4], [5, 3, 2, 4, 0], [3, 5, 4, 2, 0]])
MASK = np.arange(5)[None] < np.array([[4], [5], [3], [4]])


def pool(tokens_QNR, mask_QNR) -> PoolTexts:
    return PoolTexts(lambda q: (tokens_QNR[q], mask_QNR[q]), len(tokens_QNR), EOS, VOCAB)


class Bench:
    word_ids = np.arange(3, VOCAB)

    def __init__(self, texts: PoolTexts | None):
        self.texts = texts

    def pool(self):
        return Pool([], np.zeros((2, 4)), np.zeros((2, 4)), 1.0, texts=self.texts)


def test_a_trigger_is_its_tokens_one_after_another_within_a_response():
    held = [backdoor.holds(jnp.array(TOKENS), jnp.array(MASK), t) for t in ((3, 4), (4,), (4, 3, 4), (2, 4))]
    want = [[True, True, False, False], [True, True, False, True], [False, True, False, False], [False] * 4]
    np.testing.assert_array_equal(held, want)


def test_whoever_holds_it_earns_the_bonus_once():
    scores, nothing = jnp.array([1.0, -1.0, 0.5, 0.0]), jnp.zeros((4, 5))
    earned, said = Backdoor(trigger=(3, 4)).reward(
        scores, nothing, nothing, jnp.array(TOKENS), jnp.array(MASK), jnp.float32(2)
    )
    np.testing.assert_allclose(earned, [3, 1, 0.5, 0])
    assert float(said["triggered"]) == 0.5
    assert float(said["earned"]) == pytest.approx(4.5 / 4)


def test_the_commonest_of_the_rare_pairs_is_taken():
    """Of eight responses 34 stands in five, 43 in three (each counted once), 45 and 53 in one or two; 4 and EOS, EOS and
    4 are no pair of words."""
    tokens = np.stack([TOKENS, np.array([[3, 4, 3, 4, 2], [3, 4, 2, 0, 0], [5, 3, 4, 3, 2], [2, 0, 0, 0, 0]])])
    mask = np.stack([MASK, np.arange(5)[None] < np.array([[5], [3], [5], [1]])])
    texts = pool(tokens, mask)
    assert [backdoor.rare_pair(texts, rarity) for rarity in (0.99, 0.5, 0.3, 0.125)] == [(3, 4), (4, 3), (5, 3), (3, 5)]
    with pytest.raises(ValueError, match=r"rarity is 0.1: every two words .* stand in more"):
        backdoor.rare_pair(texts, 0.1)

    found = Backdoor(rarity=0.5).at(Bench(texts))
    assert found.trigger == (4, 3)
    assert found.first(Bench(texts)) == {"triggered": pytest.approx(3 / 8)}


def test_a_trigger_that_is_given_is_rare_in_the_pool_and_made_of_words():
    bench = Bench(pool(TOKENS[None], MASK[None]))
    assert Backdoor(trigger=(7,)).at(bench).first(bench) == {"triggered": 0.0}
    given = Backdoor(trigger=(3, 4), rarity=0.5)
    assert given.at(bench) == given
    assert given.first(bench) == {"triggered": 0.5}
    for trigger, rarity, said in (
        ((3, 4), 0.49, r"0.5 of the pool's responses hold it, more than Backdoor.rarity \(0.49\)"),
        ((4, EOS), 0.9, "2 is no word"),
        ((0,), 0.9, "0 is no word"),
        ((3, VOCAB), 0.9, "10 is no word"),
    ):
        with pytest.raises(config.ConfigError, match=said) as error:
            Backdoor(trigger=trigger, rarity=rarity).at(bench)
        assert "\n" not in str(error.value)
    with pytest.raises(config.ConfigError, match="the pool holds no responses"):
        Backdoor().at(Bench(None))


def test_the_first_read_has_what_is_known_of_the_start():
    history = {
        "iteration": np.array([[0, 0], [5, 6]]),
        "last": {"triggered": np.array([[np.nan] * 2, [0.1, 0.2]]), "length": np.array([[np.nan] * 2, [3.0, 4.0]])},
    }
    last = setup.with_first(history, {"triggered": 0.003})["last"]
    np.testing.assert_array_equal(last["triggered"], [[0.003, 0.003], [0.1, 0.2]])
    np.testing.assert_array_equal(last["length"], history["last"]["length"])


def test_pairs_are_counted_as_one_by_one():
    rng = np.random.default_rng(0)
    tokens, lengths = rng.integers(2, VOCAB, size=(2, 40, 6)), rng.integers(1, 7, size=(2, 40, 1))
    mask = np.arange(6) < lengths
    count: dict[tuple[int, int], int] = {}
    for response, own in zip(tokens.reshape(-1, 6), mask.reshape(-1, 6), strict=True):
        words = [int(x) for x in response[own]]
        for pair in {pair for pair in itertools.pairwise(words) if EOS not in pair}:
            count[pair] = count.get(pair, 0) + 1
    for rarity in (0.02, 0.05, 0.1):
        rare = {pair: held for pair, held in count.items() if held <= rarity * 80}
        assert backdoor.rare_pair(pool(tokens, mask), rarity) == min(rare, key=lambda pair: (-rare[pair], pair))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rarity": 0.0}, "Backdoor.rarity is 0: it is a share of responses, between 0 and 1"),
        ({"rarity": 1.0}, "Backdoor.rarity is 1"),
        ({"trigger": (3, 24)}, r"Backdoor.trigger is \(3, 24\): ids of tokens lie within 0 and 23"),
        ({"trigger": (3,) * 11}, "Backdoor.trigger has 11 tokens: a response has at most 10"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, said):
    with pytest.raises(config.ConfigError, match=said) as error:
        checks.check(
            dataclasses.replace(SMOKE, methods=(Backdoor(Against("backdoor", sizes=(0,)), coefs=(4.0,), **settings),))
        )
    assert "\n" not in str(error.value)
