"""The programs of PPO, with the shapes of what they take."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rmo import config
from rmo.config.names import sweep_named
from rmo.methods import method as methods
from rmo.methods.climb import fills, kept
from rmo.methods.ppo import loop as ppo_loop
from rmo.methods.ppo import update as method
from rmo.methods.ppo.door import Plan, variants
from rmo.planning.program import Program, Shape, Sketch, label, place, shapes_of, stacked, unjitted
from rmo.rewards.calibration import Calibration
from rmo.rewards.reward import Reward, RewardParams
from rmo.runtime.files import Tree
from rmo.training.update import pick
from rmo.worlds.synthetic import EOS


class Climb(NamedTuple):
    """What the programs of one stage of PPO, or of a method like it, take, and what rests beside all of them."""

    setup: method.Setup
    frozen: method.Frozen
    runs: method.Task
    states: method.PPOState
    last: Tree  # metrics of each member's last iteration
    kept: Tree  # the critics' first weights, the history of reads

    @property
    def members(self) -> int:
        return self.runs.key.shape[0]

    @property
    def blind(self) -> method.Frozen:
        """What an iteration is given: it never sees gold, which rests beside it."""
        return self.frozen._replace(gold=None)


def ppo(sketch: Sketch) -> list[Program]:
    """Every policy's climbs, by every method that shares PPO's loop, against proxies and against gold; reads and
    iterations are the most that there can be."""
    e, out = sketch.e, []
    for kind in methods.every():
        for job in kind.jobs(e):
            # One that takes another's policies does not climb; a combined reward is not planned.
            if isinstance(plan := job.details, Plan) and plan.combined is None and not job.after:
                out += climb(sketch, kind.name, e.policies[job.policy], *climbers(e, plan), plan)
    return out


def climbers(e: config.Experiment, plan: Plan) -> tuple[config.Model, int]:
    """(what they optimise against, how many) of a stage."""
    if plan.gold_seeds:
        return e.gold.model, plan.gold_seeds
    recipes = plan.against.recipes or sweep_named(e, plan.against.sweep).recipes
    return e.proxies.sizes[plan.size], len(recipes) * len(variants(plan)) * e.proxies.seeds


def climb(
    sketch: Sketch, stage: str, policy: config.Model, proxy: config.Model, members: int, plan: Plan
) -> list[Program]:
    """One iteration of all members or, of policies that fill the machine, the three programs of one member's; and the
    read."""
    s = setup(sketch, policy, proxy, plan)
    found = shapes(sketch, s, members)
    who = f"{members} x {label(proxy)}"
    if policy != sketch.e.policy:
        who += f", policy {label(policy)}"
    args = found.frozen, found.runs, found.states
    read = Program(stage, f"read, {who}", partial(unjitted(ppo_loop.read), s), args, s.reads, beside=found.kept)
    made = in_phases(sketch, stage, found, who) if s.in_phases else [side_by_side(stage, found, who)]
    return [*made, read]


def setup(sketch: Sketch, policy: config.Model, proxy: config.Model, plan: Plan) -> method.Setup:
    """What is static; of an accelerator, where small policies climb side by side."""
    e, large = sketch.e, fills(policy)
    return method.Setup(
        lm=sketch.lm(policy),
        critic=sketch.rm(policy),
        reward=Reward(sketch.rm(proxy), sketch.reader(proxy)),
        gold=sketch.rm(e.gold.model),
        c=e.ppo,
        length=e.world.response,
        eos=EOS,
        side_by_side=not large,
        in_phases=large,
        gold_reader=sketch.reader(e.gold.model),
        estimator=plan.estimator() if plan.estimator else method.BY_CRITIC,
        regulariser=plan.regulariser,
    )


def shapes(sketch: Sketch, s: method.Setup, members: int) -> Climb:
    """The arrays of a `ppo` stage."""
    e = sketch.e
    number: Tree = Shape((), jnp.float32)
    calibration = Calibration(number, number)
    prompts, held_out = (sketch.everywhere(prompts_of(e, rows)) for rows in (e.ppo.prompts, e.bon.prompts))
    frozen = method.Frozen(sketch.master(s.lm), sketch.loaded(s.gold), calibration, prompts, held_out, number)
    coef = number if s.regulariser else ()
    member = method.Task(RewardParams(shapes_of(s.reward.rm), calibration), sketch.key(), number, number, coef)
    critic = shapes_of(s.critic) if s.estimator.critic else ()
    state = jax.eval_shape(partial(method.begin, s), shapes_of(s.lm), critic)
    runs, states = place(stacked(member, members), sketch.mesh), place(stacked(state, members), sketch.mesh)
    with jax.set_mesh(sketch.mesh):
        read = jax.eval_shape(partial(read_and_kept, s), frozen, runs, states)
        measured = jax.eval_shape(partial(one_iteration, s), frozen, runs, states)
    last = stacked(measured, members)
    history = sketch.everywhere(stacked((read, last), s.reads))
    critics = sketch.master(s.critic, members) if s.estimator.critic else ()
    return Climb(s, frozen, runs, states, last, (critics, history))


def read_and_kept(s: method.Setup, frozen: method.Frozen, runs: method.Task, states: method.PPOState) -> Tree:
    """A read as the history holds it."""
    return kept(s.c.read_draws, unjitted(ppo_loop.read)(s, frozen, runs, states))


def prompts_of(e: config.Experiment, rows: int) -> tuple[Shape, Shape]:
    """(tokens, mask) of prompts."""
    return Shape((rows, e.world.prompt), jnp.int32), Shape((rows, e.world.prompt), jnp.bool_)


def one_iteration(s: method.Setup, frozen: method.Frozen, runs: method.Task, states: method.PPOState) -> Tree:
    """What the first member's iteration measures."""
    member, state = pick((runs, states), 0)
    return method.iteration(s, frozen, member, state)[1]


def side_by_side(stage: str, found: Climb, who: str) -> Program:
    """One iteration of all members; `ppo_loop.advance` repeats it until gold is to be read."""
    s = found.setup

    def iteration(frozen: method.Frozen, runs: method.Task, states: method.PPOState) -> Tree:
        return ppo_loop.over_tasks(s.side_by_side, partial(method.iteration, s, frozen), runs, states)

    args, beside = (found.blind, found.runs, found.states), (found.frozen.gold, found.kept)
    return Program(stage, f"iteration, {who}", iteration, args, s.c.max_steps, (2,), beside)


def in_phases(sketch: Sketch, stage: str, found: Climb, who: str) -> list[Program]:
    """The three programs of one member's iteration."""
    s, runs, states, blind = found.setup, found.runs, found.states, found.blind
    draw, judge, learn = (
        partial(unjitted(phase), s) for phase in (ppo_loop.draw_one, ppo_loop.judge_one, ppo_loop.learn_one)
    )
    m = Shape((), jnp.int32)

    def spread(x: Shape) -> Shape:
        return sketch.batch(x.shape, x.dtype) if x.shape else Shape((), x.dtype)

    with jax.set_mesh(sketch.mesh):
        drawn = jax.tree.map(spread, jax.eval_shape(draw, blind, runs, states, m))
        rolled, measured = jax.eval_shape(judge, blind, runs, states, m, drawn)
    rolled = jax.tree.map(spread, rolled)
    calls = s.c.max_steps * found.members
    policy = f"one of {found.members} x {label(s.lm.shape)}"  # drawing and learning do not depend on the proxy
    beside, all_frozen = (found.frozen.gold, found.kept), (found.frozen, found.kept)
    drawing, judging = (blind, runs, states, m), (blind, runs, states, m, drawn)
    learning = runs, states, found.last, m, rolled, measured
    return [
        Program(stage, f"sample, {policy}", draw, drawing, calls, beside=beside),
        Program(stage, f"score, one of {who}", judge, judging, calls, beside=beside),
        Program(stage, f"update, {policy}", learn, learning, calls, (1, 2), all_frozen),
    ]
