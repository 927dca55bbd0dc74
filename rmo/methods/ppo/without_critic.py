"""Methods that make their rollouts, reads and curves as PPO does, but compare responses to one prompt: no critic."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rmo.analysis.curve_id import Settings
from rmo.config import PPO, Against, Experiment, MethodSettings
from rmo.methods.bench import Bench, Record
from rmo.methods.method import Job, Method, Need, no_check
from rmo.methods.ppo import door
from rmo.methods.ppo.door import Plan

if TYPE_CHECKING:
    from rmo.methods.ppo.update import Estimator

OF_CRITIC = ("explained_variance", "critic_loss")


@dataclass(frozen=True)
class WithoutCritic(MethodSettings):
    """Base of the settings of such a method; all else (batch, clip, learning rate, reads, end) is as in `ppo`."""

    against: tuple[Against, ...] = (Against(),)
    """What it optimises against, as in ppo.against."""
    responses: int = 4
    """k, responses to each prompt of a batch."""


def entries(e: Experiment, kind: type[WithoutCritic]) -> list[WithoutCritic]:
    """The settings of one method, of which an experiment may have several."""
    return [settings for settings in e.methods if type(settings) is kind]


def ppo_settings(e: Experiment) -> PPO:
    """Those of `ppo` that count where there is no critic."""
    plain = PPO()
    return dataclasses.replace(
        e.ppo, against=(), lam=plain.lam, critic_init=plain.critic_init, critic_optimizer=plain.critic_optimizer
    )


def jobs(e: Experiment, kind: type[WithoutCritic], estimator: "Callable[[int], Estimator]") -> Iterator[Job]:
    """One stage for every entry of `against` and RM size, and for each combined reward there."""
    for settings in entries(e, kind):
        said = Settings({"responses": settings.responses} if settings.responses != kind().responses else {})
        alone, how = dataclasses.replace(settings, against=()), partial(estimator, settings.responses)
        for against in settings.against:
            yield from door.climbs(e, ppo_settings(e), Plan(against, estimator=how, settings=said), [alone])


def check(e: Experiment, kind: type[WithoutCritic], need: Need) -> None:
    """What it is optimised against, and groups that can be compared."""
    found, name = entries(e, kind), kind.__name__
    door.check_names([against for settings in found for against in settings.against], f"{name}.against", need)
    for settings in found:
        k = settings.responses
        for i, against in enumerate(settings.against):
            door.check_against(e, against, f"{name}.against.{i}", need)
        need(k >= 2, f"{name}.responses is {k}: responses to one prompt are compared, so it must be at least 2")
        need(e.ppo.batch % k == 0, f"{name}.responses is {k}: it must divide ppo.batch {e.ppo.batch}")
    runs = [
        (run, settings.responses)
        for settings in found
        for against in settings.against
        for run in door.optimised_by(e, against)
    ]
    need(len(set(runs)) == len(runs), f"{name}.against optimises one proxy twice with equal settings: use seeds")


def without_critic(
    kind: type[WithoutCritic],
    estimator: "Callable[[int], Estimator]",
    name: str,
    title: str,
    short: str,
    rank: int,
    more: Callable[[Experiment, Need], None] = no_check,
) -> Method:
    """The method with settings of this kind, whose updates are made by `estimator(responses)`; curves, form, charts and
    diagnostics are PPO's, less what is said of a critic. `more`: what else it refuses."""
    ppo = door.METHOD

    def check_all(e: Experiment, need: Need) -> None:
        check(e, kind, need)
        more(e, need)

    def run(bench: Bench, job: Job) -> Record:
        """Optimise every member against its reward, all in one program."""
        from rmo.methods.ppo.setup import optimise

        assert isinstance(job.details, Plan)
        members = door.arms(bench.rewards, job.details)
        bench.begin(members)
        return door.record_of(members, optimise(bench, job.policy, job.details, members), method)

    method = dataclasses.replace(
        ppo,
        name=name,
        title=title,
        short=short,
        rank=rank,
        jobs=partial(jobs, kind=kind, estimator=estimator),
        run=run,
        check=check_all,
        diagnostics=tuple(d for d in ppo.diagnostics if d.name not in OF_CRITIC),
        charts=tuple(chart for chart in ppo.charts if chart[0].removeprefix("last_") not in OF_CRITIC),
        less_memory="set or lower ppo.chunk, raise ppo.minibatches or ppo.policy_optimizer.accumulate, lower "
        f"ppo.read_draws, fewer entries in {kind.__name__}.against; policy.remat full, policy.dtype bfloat16",
    )
    return method
