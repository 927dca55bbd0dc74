"""Iterated RLHF: label, train an RM, optimise, and again (paper section 4.3; Wolf, Kirk and Musolesi 2025): settings,
stages, record. Or without new labels: those of the first round, reweighted (Shimodaira 2000)."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rmo.analysis.curve_id import CurveId, Settings
from rmo.config import Experiment, MethodSettings
from rmo.config.checks import held_out_prompts
from rmo.config.names import scores_name, size_names, sizes_of, sweep_named
from rmo.methods.bench import Arm, Bench, Record, RewardRow
from rmo.methods.method import Diagnostic, Job, Method, Need, register
from rmo.methods.ppo.door import METHOD as PPO
from rmo.methods.ppo.door import record_of


@dataclass(frozen=True)
class Rounds(MethodSettings):
    """RLHF in rounds: each labels pairs of the policy as it is by then, trains an RM on them and optimises with PPO."""

    rounds: int = 2
    """k. The first round is PPO against the run's own RM; alone, it is PPO."""
    size: int = 0
    """Which of proxies.sizes, as an index."""
    sweep: str = "main"
    """Which of proxies.sweeps the first round's RMs come from."""
    recipe: int = 0
    """Which of that sweep's recipes the RMs of every round are trained by, as an index."""
    data: Literal["latest", "concatenated", "reweighted"] = "latest"
    """What an RM learns from: its own round's comparisons, those of all rounds so far, or, without new labels, the
    first round's again, each weighted by how likely the policy is by now to write both of its responses."""
    start: Literal["latest", "initial"] = "latest"
    """Where a round's policy starts: where the round before ended, or at the initial policy."""
    comparisons: int = 0
    """Training comparisons that each later round labels; 0: as many as the recipe has."""
    kl: float = 0.0
    """KL from the initial policy, nats, at which the last round ends; 0: ppo.kl_max. Round r of k ends at r/k of its
    square root."""
    seeds: int = 0
    """How many of the RM seeds, first ones first; 0: all."""
    clip: float = 3.0
    """With data "reweighted": nats by which the logarithm of a weight may be away from its median."""
    flatten: float = 0.5
    """With data "reweighted": the power, 0 to 1, that likelihood ratios are raised to; 1 corrects most and is the
    noisiest, 0 weighs all alike: RMs are only trained anew, which is what weights are to be compared with."""

    def labels(self, e: Experiment) -> int:
        """Training comparisons that each later round labels."""
        if self.data == "reweighted":
            return 0
        return self.comparisons or sweep_named(e, self.sweep).recipes[self.recipe].comparisons

    def end(self, e: Experiment, r: int) -> float:
        """KL, nats, at which round r of 1 to k ends."""
        return (self.kl or e.ppo.kl_max) * (r / self.rounds) ** 2

    def settings(self) -> Settings:
        """What identifies its curves beside the RM of the first round."""
        plain = Rounds(size=self.size, sweep=self.sweep, recipe=self.recipe, seeds=self.seeds, rounds=0)
        return Settings.differing(self, plain)


def jobs(e: Experiment) -> Iterator[Job]:
    """One stage for every entry."""
    ppo, names = dataclasses.replace(e.ppo, against=()), size_names(e.proxies.sizes)
    for c in of_rounds(e):
        name = f"{names[c.size]}-{c.sweep}" + (f"-recipe{c.recipe}" if c.recipe else "")
        how = [value if isinstance(value, str) else f"{field}{value:g}" for field, value in c.settings().items()]
        yield Job("-".join([name, *how]), scores_name(e, c.size, sweep_named(e, c.sweep)), (e.seed, ppo, c), details=c)


def of_rounds(e: Experiment) -> list[Rounds]:
    return [c for c in e.methods if isinstance(c, Rounds)]


def check(e: Experiment, need: Need) -> None:
    """Entries of `methods` that can be made, each once."""
    found = of_rounds(e)
    twice = [c for i, c in enumerate(found) if same(c) in map(same, found[:i])]
    need(
        not twice, "methods has two entries of Rounds that would give the same curves: for repeats raise proxies.seeds"
    )
    for c in found:
        check_one(e, c, need)


def same(c: Rounds) -> tuple[object, ...]:
    """What tells its curves from those of others."""
    return c.size, c.sweep, c.recipe, c.settings()


def check_one(e: Experiment, c: Rounds, need: Need) -> None:
    sweeps = {sweep.name: sweep for sweep in e.proxies.sweeps}
    need(c.rounds >= 1, f"Rounds.rounds is {c.rounds}: it must be at least 1, which is PPO as it stands")
    need(c.sweep in sweeps, f"Rounds.sweep is {c.sweep!r}: proxies.sweeps has {', '.join(sweeps)}")
    sweep = sweeps[c.sweep]
    need(sweep.best_of_n, f"Rounds.sweep is {c.sweep!r}, which has no best-of-n: PPO needs its calibration")
    have = sizes_of(e, sweep)
    need(c.size in have, f"Rounds.size is {c.size}: sweep {sweep.name} has sizes {have}")
    last = len(sweep.recipes) - 1
    need(c.recipe <= last, f"Rounds.recipe is {c.recipe}: sweep {sweep.name} has recipes 0 to {last}")
    need(c.seeds <= e.proxies.seeds, f"Rounds.seeds is {c.seeds}: there are {e.proxies.seeds} (proxies.seeds)")
    far = f"Rounds.kl is {c.kl:g}: ppo.kl_max is {e.ppo.kl_max:g}, up to which reads are planned; raise that too"
    need(0 <= c.kl <= e.ppo.kl_max, far)
    recipe = sweep.recipes[c.recipe]
    how = f"trains on {recipe.prompts} prompts" if recipe.prompts else f"chooses what it trains on ({recipe.choice})"
    how = "trains on confounded comparisons" if recipe.confounded else how
    plain = not (recipe.prompts or recipe.choice or recipe.confounded)
    need(plain, f"Rounds.recipe is {c.recipe}, which {how}: rounds label new pairs as they come, so take another")
    need(
        c.end(e, 1) ** 0.5 >= e.ppo.d_step,
        f"Rounds: the first of {c.rounds} rounds ends at sqrt(KL) {c.end(e, 1) ** 0.5:.3g}, before gold is read once "
        f"(ppo.d_step {e.ppo.d_step:g}): fewer rounds, more KL or a smaller d_step",
    )
    if c.data == "reweighted":
        check_weights(c, need)
    else:
        check_labels(e, c, need)


def check_weights(c: Rounds, need: Need) -> None:
    """What weights of the first round's labels need."""
    need(c.rounds >= 2, "Rounds.data is 'reweighted' with 1 round, in which no RM is trained anew: take 2 or more")
    need(
        not c.comparisons,
        f"Rounds.comparisons is {c.comparisons} with data 'reweighted', where later rounds label nothing: leave it out",
    )
    need(c.clip > 0, f"Rounds.clip is {c.clip:g}: it must be above 0, where all comparisons would count alike")
    need(0 <= c.flatten <= 1, f"Rounds.flatten is {c.flatten:g}: it must be at least 0 and at most 1")
    need(
        c.flatten > 0 or c.clip == Rounds().clip,
        f"Rounds.clip is {c.clip:g} with flatten 0, where all comparisons count alike: leave it out",
    )


def check_labels(e: Experiment, c: Rounds, need: Need) -> None:
    """What later rounds label."""
    plain = Rounds()
    need(
        (c.clip, c.flatten) == (plain.clip, plain.flatten),
        f"Rounds.clip and Rounds.flatten are for data 'reweighted', and data is {c.data!r}: leave them out",
    )
    size = c.labels(e)
    need(size >= e.proxies.batch, f"Rounds.comparisons is {size}: it must be at least one batch ({e.proxies.batch})")
    prompts, most = -(-size // e.comparisons.pairs), e.comparisons.prompts - held_out_prompts(e)
    need(
        prompts <= most,
        f"Rounds.comparisons is {size}, at {e.comparisons.pairs} pairs to a prompt {prompts} prompts a round: "
        f"comparisons.prompts gives {most} to train on; lower the one or raise the other",
    )


def labels(id: CurveId) -> int | None:
    """Training comparisons of all rounds: the RM's own, then those that each later round labels, if it does."""
    if id.rm_comparisons is None or id.settings.get("data") == "reweighted":
        return id.rm_comparisons
    later = int(id.settings.number("comparisons", id.rm_comparisons))
    return id.rm_comparisons + (int(id.settings.number("rounds", 1)) - 1) * later


def arms(rewards: Sequence[RewardRow], c: Rounds) -> list[Arm]:
    """One for every RM seed."""
    places = [i for i, row in enumerate(rewards) if not row.combined and row.recipe_index == c.recipe]
    return [Arm(i, c.settings()) for i in places[: c.seeds or None]]


def run(bench: Bench, job: Job) -> Record:
    """All rounds of every RM seed."""
    from rmo.methods.rounds.course import course

    c = job.details
    assert isinstance(c, Rounds)
    members = arms(bench.rewards, c)
    bench.begin(members)
    first, later = bench.rewards[members[0].reward].comparisons or 0, c.labels(bench.experiment)
    histories, effective = course(bench, c, members)
    labels = [first + r * later for r in range(c.rounds)]
    return one_record(members, histories, c.start, labels, effective if c.data == "reweighted" else ())


def one_record(
    members: Sequence[Arm],
    histories: Sequence[dict],
    start: str,
    labels: Sequence[int],
    effective: Sequence[np.ndarray] = (),
) -> Record:
    """The histories of all rounds, one after the other, as one curve per member; `labels` are the training comparisons
    that were made up to each round, `effective` the share of its RM's that its weights leave, f64[M], where it has any.

    Iterations are counted on. What a round's first read sees was read at the end of the round before, or is the initial
    policy; and of a round that starts there again the curve has what lies beyond the KL of the rounds before it.
    """
    counted, made = [], np.zeros(len(members), np.int32)
    for history in histories:
        counted.append(history | {"iteration": history["iteration"] + made})
        made = counted[-1]["iteration"][-1]
    record = record_of(members, joined(counted), PPO)
    round_K = np.repeat(np.arange(len(histories)), [len(history["iteration"]) for history in histories])
    real = np.asarray(record.real)
    if start == "initial":
        real = beyond(record.kl, real, round_K)
    of_round = {"round": round_K + 1.0, "labels": np.asarray(labels, np.float64)[round_K]}
    told = {name: np.tile(x_K, (len(members), 1)) for name, x_K in of_round.items()}
    if len(effective):
        told["effective"] = np.stack(effective, axis=1)[:, round_K]
    return dataclasses.replace(record, real=real, diagnostics=record.diagnostics | told)


def joined(histories: Sequence[dict]) -> dict:
    """Nested dictionaries of arrays as one, along the first axis."""
    out = {}
    for name, first in histories[0].items():
        parts = [history[name] for history in histories]
        out[name] = joined(parts) if isinstance(first, dict) else np.concatenate(parts)
    return out


def beyond(kl_MK: np.ndarray, real_MK: np.ndarray, round_K: np.ndarray) -> np.ndarray:
    """Which points have more KL than any of the member's earlier rounds had, bool[M, K]."""
    out, reached_M = np.zeros_like(real_MK), np.full(len(kl_MK), -np.inf)
    for r in np.unique(round_K):
        here = round_K == r
        out[:, here] = real_MK[:, here] & (kl_MK[:, here] > reached_M[:, None])
        reached_M = np.maximum(reached_M, np.where(out[:, here], kl_MK[:, here], -np.inf).max(axis=1))
    return out


METHOD = register(
    Method(
        name="rounds",
        title="iterated RLHF (PPO in rounds)",
        short="rounds",
        axis=PPO.axis,
        kl=PPO.kl,
        kl_axis=PPO.kl_axis,
        form=PPO.form,
        shared_alpha=PPO.shared_alpha,
        jobs=jobs,
        run=run,
        check=check,
        logs_points=True,
        labels=labels,
        diagnostics=(
            *PPO.diagnostics,
            Diagnostic("round", "round", drawn=True),
            Diagnostic("labels", "training comparisons labelled so far"),
            Diagnostic("effective", "effective sample size as a share of the RM's comparisons"),
        ),
        charts=PPO.charts,
        less_memory=PPO.less_memory,
        rank=3,
    )
)
