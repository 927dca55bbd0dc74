"""What the columns of a log are called."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of a log's columns. One that is None is found by the names that trainers use; gold by its own name."""

    kl: str | None = None
    """KL from the initial policy in nats: objective/kl, actor/reward_kl_penalty, ..."""
    gold: str | None = None
    """What you really want: eval/gold, eval_rewards/gold/mean, val-core/judge/reward/mean@1, ..."""
    proxy: str | None = None
    """The score that was optimised: objective/scores, reward, critic/score/mean, ..."""
    step: str | None = None
    """Rows are joined by it: step, global_step, train/global_step, _step, ..."""
    se: str | None = None
    """Standard errors of gold."""
    n: str | None = None
    """n of best-of-n; where there is no KL it is log n - (n-1)/n."""
    group: str | None = None
    """COLUMN or COLUMN,COLUMN (file and run are columns too): every value is a curve with a fit of its own."""
    seeds: str | None = None
    """COLUMN (or file, or run) whose values are repetitions of one curve: they are averaged."""
    method: str | None = None
    """How the policy was optimised, by the name of a method: ppo (any RL), bon, ... Default: bon if the log has n, else
    ppo."""
    per_token: str | None = None
    """KL is a mean per token: multiply by this COLUMN of mean response lengths, or by this number."""
    kl_sum: bool = False
    """KL is the sum over a response already."""
    start: float | None = None
    """Gold of the initial policy; default: its first points, if KL is about 0 there."""
