"""Gold that is what was optimised, or a part of it, is warned of; gold that is neither is not."""

import json

import numpy as np
import pytest

from rmo.logs import gold_in_proxy, reading
from rmo.logs.columns import Columns


def run(seed=0, k=40, weights=(1.0, 0.5), gold_noise=0.05):
    """Rows of GRPO's with two reward functions that are summed, and gold that is read apart from them."""
    rng = np.random.default_rng(seed)
    rise = np.sqrt(np.linspace(0, 1, k))
    form, answer = (rise * size + 0.1 * rng.normal(size=k) for size in (0.5, 1.0))
    gold = rise * (1.5 - rise) + gold_noise * rng.normal(size=k)
    return [
        {"step": i, "kl": 0.01 * rise[i], "completions/mean_length": 100.0, "rewards/form/mean": form[i], "rewards/form/std": 0.1,
         "rewards/answer/mean": answer[i], "rewards/answer/std": 0.2, "rewards/gold/mean": gold[i], "eval_judge": gold[i],
         "reward": weights[0] * form[i] + weights[1] * answer[i]} for i in range(k)]  # fmt: skip


def warned(gold, rows=None, proxy="reward", step="step"):
    return gold_in_proxy.warning(rows or run(), gold, proxy, step)


def test_gold_that_is_the_proxy():
    rows = [{**row, "score": row["reward"]} for row in run()]
    assert warned("score", rows).startswith("gold score is reward itself (the same numbers): it was optimised")
    assert warned("score", rows, proxy=None) is None


def test_the_weight_of_a_reward_function_is_found():
    assert "gold rewards/form/mean is a part of reward, with weight 1: it was" in warned("rewards/form/mean")
    assert "gold rewards/answer/mean is a part of reward, with weight 0.5" in warned("rewards/answer/mean")


def test_a_reward_function_of_weight_0_is_gold():
    assert warned("rewards/gold/mean") is None
    assert warned("eval_judge") is None


def test_by_name_where_the_numbers_cannot_say():
    """A few rows only, or sums that were clipped."""
    assert "by its name gold rewards/form/mean is one of the rewards" in warned("rewards/form/mean", run(k=5))
    rows = [{"step": i, "reward/total": i % 7, "reward/format": i % 3} for i in range(30)]
    assert "by its name gold reward/format is one of the rewards" in warned("reward/format", rows, "reward/total")


def test_by_correlation_beyond_the_trend():
    """The same samples scored twice share their noise; a judgement of other samples shares the trend alone."""
    rng = np.random.default_rng(1)
    rise, noise = np.linspace(0, 1, 50), rng.normal(size=50)
    rows = [{"step": i, "rm": rise[i] + 0.3 * noise[i], "mixed": 2 * rise[i] + 0.31 * noise[i] + 0.03 * rng.normal(),
             "apart": rise[i] + 0.3 * rng.normal(), "smooth": rise[i] ** 2} for i in range(50)]  # fmt: skip
    assert "gold mixed moves with rm read by read, beyond any trend" in warned("mixed", rows, "rm")
    assert warned("apart", rows, "rm") is None
    assert warned("smooth", [{**row, "rm": row["step"]} for row in rows], "rm") is None


def test_independent_gold_is_rarely_warned_of():
    assert not [
        seed for seed in range(100) if warned("eval_judge", run(seed)) or warned("rewards/gold/mean", run(seed))
    ]


@pytest.mark.parametrize("gold", ["rewards/form/mean", "eval_judge"])
def test_the_warning_is_printed(tmp_path, gold):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in run()))
    _, notes = reading.read([path], Columns(gold=gold, per_token="completions/mean_length"))
    assert any("is a part of reward" in note for note in notes) == (gold != "eval_judge")
