"""From the bench to arrays: what one stage of PPO starts from, all of its members in one program."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rmo.config import PPO, Against, Experiment
from rmo.methods.bench import Arm, Bench
from rmo.methods.climb import fills
from rmo.methods.ppo import loop, update
from rmo.methods.ppo.door import Plan
from rmo.methods.ppo.regulariser import Regulariser
from rmo.methods.wording import wording
from rmo.models import transformer
from rmo.models.transformer import LanguageModel, Params
from rmo.rewards.reward import Reward, RewardParams


def optimise(bench: Bench, policy: int, plan: Plan, members: Sequence[Arm]) -> dict:
    """What `loop.train_ppo` found of all members, arrays [K, M, ...]; the policies are kept."""
    setup, frozen, tasks = start(bench, policy, plan, members)
    critics = ()
    if setup.estimator.critic:
        critics = first_critics(bench, setup.c, setup.lm, setup.reward, tasks.reward, frozen.reference)
    tracker = bench.tracker(setup.reads, "read")
    observe = observer(bench, setup.c.read_draws)
    history, states = loop.train_ppo(
        setup, frozen, tasks, critics, bench.mesh, bench.checkpoints, tracker, observe=observe
    )
    bench.keep_policies(states.policy.params, len(members))
    return with_first(history, setup.regulariser.first(bench) if setup.regulariser else {})


def with_first(history: dict, known: dict[str, float]) -> dict:
    """A history whose first read, which no iteration comes before, has these in place of the metrics of one."""
    first_K = np.arange(len(history["iteration"])) == 0
    put = {name: np.where(first_K[:, None], value, history["last"][name]) for name, value in known.items()}
    return {**history, "last": {**history["last"], **put}}


def start(
    bench: Bench, policy: int, plan: Plan, members: Sequence[Arm]
) -> tuple[update.Setup, update.Frozen, update.Task]:
    """What all members share, and what each has of its own (a leading axis)."""
    reward, params = bench.reward([arm.reward for arm in members])
    setup, frozen = stage(bench, policy, plan, reward)
    return setup, frozen, tasks_of(bench, members, reward, params, setup.regulariser)


def stage(bench: Bench, policy: int, plan: Plan, reward: Reward) -> tuple[update.Setup, update.Frozen]:
    """What all members share."""
    lm, reference = bench.policy()
    gold = bench.gold()
    estimator = plan.estimator() if plan.estimator else update.BY_CRITIC
    c = scaled(bench.experiment, policy, plan.against)
    c = dataclasses.replace(c, minibatches=1) if estimator.whole else c
    large, regulariser = fills(lm.shape), plan.regulariser and plan.regulariser.at(bench)
    setup = update.Setup(
        lm, bench.critic(), reward, gold.rm, c, bench.length, bench.eos,
        side_by_side=jax.default_backend() != "cpu" and not large, in_phases=large, gold_reader=gold.reader,
        estimator=estimator, regulariser=regulariser,
    )  # fmt: skip
    on_device = partial(jax.tree.map, jnp.asarray)
    frozen = update.Frozen(
        reference, gold.params, on_device(gold.calibration), on_device(bench.prompts(c.prompts, "ppo")),
        on_device(bench.read_prompts()), jnp.float32(gold.logits),
    )  # fmt: skip
    return setup, frozen


def tasks_of(
    bench: Bench,
    members: Sequence[Arm],
    reward: Reward,
    params: RewardParams,
    regulariser: Regulariser | None = None,
) -> update.Task:
    """What tells members apart, a leading axis of them."""
    # A seed has the same stream at every penalty and recipe: differences between them are not a difference of luck.
    # RM sizes have streams of their own: a mean over sizes would not lose the luck that they share.
    key = jax.random.fold_in(bench.key("ppo"), reward.rm.shape.weights % 2**32)
    seeds = jnp.asarray([bench.rewards[arm.reward].seed or 0 if arm.seed is None else arm.seed for arm in members])
    keys = jax.vmap(partial(jax.random.fold_in, key))(seeds)

    def of_arms(name: str) -> jax.Array:
        return jnp.asarray([arm.settings.number(name) for arm in members], jnp.float32)

    coefs = of_arms(regulariser.setting) if regulariser else ()
    return update.Task(params, keys, of_arms("kl_coef"), of_arms("d_per_step"), coefs)


ANNOTATED = 8  # samples of each prompt, at most, that the annotator is asked about


def observer(bench: Bench, read_draws: int) -> loop.Observe:
    """What is measured on the host of a read's samples [M, Q * read_draws, R]: their wording, by its fields, and the
    annotator's mean per prompt, f32[M, Q], where there is one."""

    def observe(tokens_MBR: np.ndarray, mask_MBR: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, list[np.ndarray]] = {}
        for tokens_BR, mask_BR in zip(tokens_MBR, mask_MBR, strict=True):
            said = wording(tokens_BR, mask_BR, bench.eos, bench.vocab)._asdict()
            by_prompt = (x.reshape(-1, read_draws, x.shape[-1])[:, :ANNOTATED] for x in (tokens_BR, mask_BR))
            scores_QD = bench.annotated(*by_prompt)
            said |= {} if scores_QD is None else {"annotator": scores_QD.mean(axis=1)}
            for name, value in said.items():
                found.setdefault(name, []).append(value)
        return {name: np.stack(values).astype(np.float32) for name, values in found.items()}

    return observe


def scaled(e: Experiment, policy: int, against: Against) -> PPO:
    """The settings with this policy's learning rates: they scale with main width / width."""
    factor = against.lr_scale * e.policy.width / e.policies[policy].width
    both = (e.ppo.policy_optimizer, e.ppo.critic_optimizer)
    policy_optimizer, critic_optimizer = (dataclasses.replace(o, lr=o.lr * factor) for o in both)
    return dataclasses.replace(e.ppo, policy_optimizer=policy_optimizer, critic_optimizer=critic_optimizer)


def first_critics(
    bench: Bench, c: PPO, lm: LanguageModel, reward: Reward, params: RewardParams, reference: Params
) -> Params:
    """What the critics start from, a leading axis of members: the reward itself, in its calibrated units, where the
    config asks for it, it is read at the last token and the shapes agree; else the policy's trunk under a head of
    zeros."""
    shift, scale = jnp.asarray(params.calibration.shift), jnp.asarray(params.calibration.scale)
    rm = reward.rm.shape
    fits = lm.shape.shape == rm.shape and rm.reads == "ids" and rm.pooling == "last" and not reward.how
    if c.critic_init == "proxy" and fits:
        trunk, head = params.params["trunk"], params.params["head"]
        bias = (head["bias"] - shift[:, None]) * scale[:, None]
        return {"trunk": trunk, "head": {"kernel": head["kernel"] * scale[:, None, None], "bias": bias}}
    shapes = jax.eval_shape(partial(transformer.init, bench.critic()), bench.key("critic"))["head"]
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    repeat = jax.jit(partial(jax.tree.map, lambda x: jnp.repeat(x[None], len(shift), axis=0)))
    return repeat({"trunk": reference["trunk"], "head": zeros})
