"""RL: PPO against a reward, gold read along the way (paper section 3): its stages, its members, its record."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmo.analysis.curve_id import Settings
from rmo.config import PPO, Against, Experiment
from rmo.config.checks import directory_name
from rmo.config.names import GOLD_SCORES, ensemble_name, other_policies, scores_name, size_names, sizes_of, sweep_named
from rmo.methods.bench import JUDGED, SPREAD, Arm, Bench, Record, RewardRow
from rmo.methods.method import Diagnostic, Job, Method, Need, register
from rmo.methods.ppo.regulariser import Regulariser
from rmo.methods.wording import Wording

if TYPE_CHECKING:
    from rmo.methods.ppo.update import Estimator


@dataclass(frozen=True)
class Plan:
    """What one stage optimises against, as its `Job.details`."""

    against: Against
    combined: int | None = None  # which of the sweep's combined rewards; None: its single ones
    gold_seeds: int = 0  # runs against gold itself; 0: against a sweep
    regulariser: Regulariser | None = None
    estimator: "Callable[[], Estimator] | None" = None  # how it learns; None: by a critic, as PPO does
    settings: Settings = dataclasses.field(
        default_factory=Settings
    )  # of all its curves, beside those that members differ in
    size: int = 0  # which of proxies.sizes


def regularisers(e: Experiment) -> list[Regulariser]:
    """Those that the experiment asks for."""
    return [settings for settings in e.methods if isinstance(settings, Regulariser)]


def climbs(e: Experiment, c: PPO, plan: Plan, settings: Sequence[object] = ()) -> Iterator[Job]:
    """A stage for every RM size of `plan.against`, and one for each combined reward and ensemble there. `settings`: on
    what, beside `c`, its numbers depend."""
    against, names = plan.against, size_names(e.proxies.sizes)
    sweep = sweep_named(e, against.sweep)
    alone = dataclasses.replace(against, sizes=(), combined=(), ensembles=())
    for size in against.sizes or sizes_of(e, sweep):
        name, scores = f"{names[size]}-{against.name}", scores_name(e, size, sweep)
        of_size = dataclasses.replace(plan, size=size)
        yield Job(name, scores, (e.seed, c, alone, *settings), details=of_size)
        for index in against.combined:
            of, details = sweep.combined[index], dataclasses.replace(of_size, combined=index)
            yield Job(f"{name}-{of.name}", scores, (e.seed, c, alone, of, *settings), details=details)
    for of_sizes in (e.ensembles[i] for i in against.ensembles):
        scores, how = ensemble_name(of_sizes), dataclasses.replace(alone, sweep="", recipes=())
        details = dataclasses.replace(plan, combined=0)
        yield Job(f"{scores}-{against.name}", scores, (e.seed, c, how, *settings), details=details)


def jobs(e: Experiment) -> Iterator[Job]:
    """One stage for every entry of ppo.against and of a regulariser, and RM size, one for each combined reward and
    ensemble there, for every other policy, and for gold as its own proxy."""
    settings = dataclasses.replace(e.ppo, against=())
    for against in e.ppo.against:
        yield from climbs(e, settings, Plan(against))
    for regulariser in regularisers(e):
        alone = dataclasses.replace(regulariser, against=Against())
        yield from climbs(e, settings, Plan(regulariser.against, regulariser=regulariser), [alone])
    main = e.proxies.sweeps[0]
    against = Against(sweep=main.name, recipes=(0,))
    for policy, size in other_policies(e):
        name = scores_name(e, size, main, policy)
        yield Job(name, name, (e.seed, settings, against), policy, Plan(against, size=size))
    if seeds := e.gold_as_proxy.ppo_seeds:
        plan = Plan(Against(sweep=""), gold_seeds=seeds)
        yield Job(GOLD_SCORES, GOLD_SCORES, (e.seed, settings, seeds), details=plan)


def check(e: Experiment, need: Need) -> None:
    """The settings, and what the policy is optimised against."""
    c = e.ppo
    check_names([*c.against, *(r.against for r in regularisers(e))], "ppo.against", need)
    for i, against in enumerate(c.against):
        check_against(e, against, f"ppo.against.{i}", need)
    for r in regularisers(e):
        check_against(e, r.against, f"{type(r).__name__}.against", need)
        positive = bool(r.coefs) and min(r.coefs) > 0
        need(positive, f"{type(r).__name__}.coefs is {r.coefs}: give one or several above 0; ppo.against is without")
        r.check(e, need)
    runs = [run for against in c.against for run in optimised_by(e, against)]
    runs += [(run, r.setting, coef) for r in regularisers(e) for run in optimised_by(e, r.against) for coef in r.coefs]
    twice = "ppo.against, or a regulariser among methods, optimises one proxy twice as curves.csv tells it: use seeds"
    need(len(set(runs)) == len(runs), twice)
    need(c.batch % c.minibatches == 0, f"ppo.minibatches is {c.minibatches}: it must divide ppo.batch {c.batch}")
    need(not c.chunk or c.batch % c.chunk == 0, f"ppo.chunk is {c.chunk}: it must divide ppo.batch {c.batch}")
    need(0 < c.lam <= 1, f"ppo.lam is {c.lam}: it must lie in (0, 1]")
    batch = c.batch // c.minibatches
    for name in ("policy_optimizer", "critic_optimizer"):
        parts = getattr(c, name).accumulate
        need(batch % parts == 0, f"ppo.{name}.accumulate is {parts}: it must divide the batch of {batch}")


def check_names(entries: Sequence[Against], where: str, need: Need) -> None:
    """Names that directories can have, each once."""
    names = [against.name for against in entries]
    need(len(set(names)) == len(names), f"{where} has two entries of one name: {', '.join(names)}")
    for name in names:
        directory_name(name, f"{where}: name")


def check_against(e: Experiment, against: Against, where: str, need: Need) -> None:
    """One entry of ppo.against."""
    sweeps = {sweep.name: sweep for sweep in e.proxies.sweeps}
    need(against.sweep in sweeps, f"{where}.sweep is {against.sweep!r}: proxies.sweeps has {', '.join(sweeps)}")
    sweep = sweeps[against.sweep]
    need(sweep.best_of_n, f"{where}.sweep is {against.sweep!r}, which has no best-of-n: PPO needs its calibration")
    for field, owners, what in (
        (against.recipes, sweep.recipes, "recipes"),
        (against.combined, sweep.combined, "combined"),
        (against.ensembles, e.ensembles, "ensembles"),
    ):
        for index in field:
            last = len(owners) - 1
            of = "" if what == "ensembles" else f" of sweep {sweep.name}"
            holds = f"the {what}{of} holds indices 0 to {last}" if owners else f"there are no {what}{of}"
            need(0 <= index <= last, f"{where}.{what} has {index}: {holds}")
    have = sizes_of(e, sweep)
    need(set(against.sizes) <= set(have), f"{where}.sizes is {against.sizes}: sweep {sweep.name} has sizes {have}")
    penalties = bool(against.kl_coefs) and min(against.kl_coefs) >= 0
    need(penalties, f"{where}.kl_coefs must be at least 0, and not none")
    need(against.d_per_step >= 0, f"{where}.d_per_step is {against.d_per_step}: it must be at least 0")


def optimised_by(e: Experiment, against: Against) -> list[tuple]:
    """What tells the curves of one entry of ppo.against from those of another."""
    sweep = sweep_named(e, against.sweep)
    recipes = [sweep.recipes[r] for r in against.recipes] or sweep.recipes
    combined = [sweep.combined[c] for c in against.combined]
    rewards = [*recipes, *((sweep.recipes[c.recipe], c) for c in combined)]
    sizes = against.sizes or sizes_of(e, sweep)
    how = against.lr_scale, against.d_per_step
    of_sizes = [(None, e.ensembles[i]) for i in against.ensembles]
    every = [*((i, reward) for i in sizes for reward in rewards), *of_sizes]
    return [(*reward, coef, *how) for reward in every for coef in against.kl_coefs]


def arms(rewards: Sequence[RewardRow], plan: Plan) -> list[Arm]:
    """Recipes x `variants` x seeds; of a combined reward, variants; of gold, seeds."""
    against = plan.against
    if plan.gold_seeds:
        return [Arm(0, seed=seed) for seed in range(plan.gold_seeds)]
    if plan.combined is not None:
        place = [i for i, row in enumerate(rewards) if row.combined][plan.combined]
        return [Arm(place, settings) for settings in variants(plan)]
    single = [(i, row) for i, row in enumerate(rewards) if not row.combined]
    out = []
    for recipe in against.recipes or tuple(dict.fromkeys(row.recipe_index for _, row in single)):
        of_recipe = [i for i, row in single if row.recipe_index == recipe]
        out += [Arm(i, settings) for settings in variants(plan) for i in of_recipe]
    return out


def variants(plan: Plan) -> list[Settings]:
    """What identifies the curves of one reward: where not the default, the KL penalty, the path that it is anchored to,
    the learning rate, the regulariser's coefficient, and what else the method sets."""
    against, r = plan.against, plan.regulariser
    common = {"d_per_step": against.d_per_step} if against.d_per_step else {}
    common |= {"lr_scale": against.lr_scale} if against.lr_scale != 1 else {}
    penalties = [{"kl_coef": kl_coef} if kl_coef else {} for kl_coef in against.kl_coefs]
    coefs = [{r.setting: coef} for coef in r.coefs] if r else [{}]
    return [Settings(penalty | common | coef | dict(plan.settings)) for penalty in penalties for coef in coefs]


def run(bench: Bench, job: Job) -> Record:
    """Optimise every member against its reward, all in one program."""
    from rmo.methods.ppo.setup import optimise

    assert isinstance(job.details, Plan)
    members = arms(bench.rewards, job.details)
    bench.begin(members)
    more = job.details.regulariser.recorded if job.details.regulariser else ()
    return record_of(members, optimise(bench, job.policy, job.details, members), METHOD, more)


def record_of(members: Sequence[Arm], history: dict, method: Method, more: Sequence[str] = ()) -> Record:
    """The record of a history in which arrays are [K, M, ...], with the diagnostics that its method has, and `more` of
    the metrics of iterations."""

    def by_member(x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x, 0, 1)

    read, last, iteration = history["read"], history["last"], history["iteration"]
    fresh = np.concatenate([np.ones((1, len(members)), bool), np.diff(iteration, axis=0) > 0])
    means = {d.name: read[d.name].mean(-1) for d in method.diagnostics if d.name in read}
    means |= {d.name: last[d.name] for d in method.diagnostics if d.name in last and d.name not in read}
    means |= {name: last[name] for name in more}
    return Record(
        arms=members,
        step_or_n=by_member(iteration),
        kl=by_member(read["kl"].mean(-1, dtype=np.float64)),
        proxy=by_member(read["proxy"]),
        gold=by_member(read["gold"]),
        real=by_member(fresh),
        judged={name: by_member(read[name]) for name in (*JUDGED, SPREAD) if name in read},
        diagnostics={name: by_member(x) for name, x in means.items()},
        annotator=by_member(read["annotator"]) if "annotator" in read else None,
        wording=Wording(*(by_member(read[name]) for name in Wording._fields)) if "rates" in read else None,
        tokens=by_member(read["tokens"]),
        mask=by_member(read["mask"]),
    )


METHOD = register(
    Method(
        name="ppo",
        title="RL (PPO)",
        short="PPO",
        axis="iteration",
        kl="exact",
        kl_axis="KL distance between RL tuned policy and initial policy, nats (square-root scale)",
        form="d(a - b log d)",
        shared_alpha=True,
        jobs=jobs,
        run=run,
        check=check,
        logs_points=True,
        diagnostics=(
            Diagnostic("kl_k1", "KL by k1, nats"),
            Diagnostic("kl_k3", "KL by k3, nats"),
            Diagnostic("entropy", "entropy per token, nats", drawn=True),
            Diagnostic("length", "response length, tokens", drawn=True),
            Diagnostic("unfinished", "share of responses that ran out of room"),
            Diagnostic("clip_fraction", "share of ratios clipped", drawn=True),
            Diagnostic("approx_kl", "KL of an update, estimated"),
            Diagnostic("explained_variance", "critic's explained variance", drawn=True),
            Diagnostic("critic_loss", "value loss"),
            Diagnostic("kl_coef", "KL coefficient"),
            Diagnostic("sampler_gap", "largest gap between the sampler's and the trainer's log-probability"),
            Diagnostic("first_ratio", "ratio before the first update: 1"),
            Diagnostic("proxy_cut", "share of texts too long for the proxy"),
            Diagnostic("gold_cut", "share of texts too long for gold"),
        ),
        charts=(
            ("kl", "KL from the initial policy, held-out prompts"),
            ("gold", "Gold"),
            ("proxy", "Proxy"),
            ("entropy", "Entropy per token"),
            ("length", "Response length"),
            ("last_clip_fraction", "Clip fraction"),
            ("last_approx_kl", "KL of an update, estimated"),
            ("last_policy_loss", "Policy loss"),
            ("last_critic_loss", "Value loss"),
            ("last_explained_variance", "Variance that the critic explains"),
            ("last_sampler_gap", "Largest gap between sampler's and trainer's log-probability"),
            ("last_first_ratio", "Ratio before the first update: 1"),
        ),
        less_memory="set or lower ppo.chunk, raise ppo.minibatches or ppo.policy_optimizer.accumulate and "
        "ppo.critic_optimizer.accumulate, lower ppo.read_draws, fewer recipes or kl_coefs in ppo.against; policy.remat "
        "full, policy.dtype bfloat16",
        rank=2,
    )
)
