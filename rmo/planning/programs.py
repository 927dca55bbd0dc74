"""The programs that an experiment runs, with the shapes of what they take: to be compiled without data or weights.

They are the stages' own functions, so what is planned is what runs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rmo import config
from rmo.methods import ppo, ppo_loop
from rmo.models import scoring, transformer
from rmo.models.sampling import sample_n
from rmo.models.transformer import LanguageModel, RewardModel
from rmo.runtime import sharding
from rmo.training import objectives
from rmo.training.loop import Member, make_step, pick


class Program(NamedTuple):
    """One jitted function of one stage."""

    stage: str
    name: str
    fn: Callable[..., Any]
    args: tuple[Any, ...]  # trees of ShapeDtypeStruct with shardings
    calls: int  # in the whole experiment
    donated: tuple[int, ...] = ()
    beside: Any = ()  # what else rests in memory meanwhile


def place(tree: Any, mesh: Mesh) -> Any:
    """A tree of shapes with the shardings of parameters and states."""
    at = sharding.shardings_of(tree, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, at)


def batch(mesh: Mesh, shape: tuple[int, ...], dtype: Any, axis: int | None = 0) -> Any:
    """An array with `axis` over `data`, where it divides."""
    split = axis is not None and shape[axis] % mesh.shape["data"] == 0
    spec = PartitionSpec(*[None] * (axis or 0), "data") if split else PartitionSpec()
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def shapes_of(module: LanguageModel | RewardModel, members: int = 0, stored: str = "float32") -> Any:
    """Parameters as shapes; of a frozen model that is kept in another type, `stored`."""
    draw = partial(transformer.init, module)
    if members:
        draw = lambda key: jax.vmap(partial(transformer.init, module))(jax.random.split(key, members))  # noqa: E731
    found = jax.eval_shape(draw, jax.random.key(0))
    kind = lambda path, x: jnp.dtype(stored) if sharding.ruled(path) else x.dtype  # noqa: E731
    return jax.tree_util.tree_map_with_path(lambda path, x: jax.ShapeDtypeStruct(x.shape, kind(path, x)), found)


def inner(jitted: Any) -> Callable[..., Any]:
    """The function itself: shardings are those of the arguments here."""
    return jitted.__wrapped__


def a_key(mesh: Mesh) -> Any:
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=NamedSharding(mesh, PartitionSpec()))


def programs(e: config.Experiment, mesh: Mesh) -> list[Program]:
    """The programs that an experiment spends its time in, in the order of the stages.

    Not among them: PPO of other policies, and what takes little: best-of-n of other policies, the audit, the report.
    """
    w, out = e.world, []
    p, r = w.prompt, w.response
    vocab = e.policy.vocab or w.tokens
    lm_of = lambda m: LanguageModel(m, m.vocab or vocab, m.length or p + r)  # noqa: E731
    rm_of = lambda m: RewardModel(m, m.vocab or vocab, m.length or p + r)  # noqa: E731
    ints, bools = jnp.int32, jnp.bool_

    def trained(stage: str, name: str, module, loss, optimizer, steps: int, data: Any, members: int = 0):
        settings = None
        if members:
            zero = jnp.zeros(members)
            settings = Member(
                jnp.full(members, steps), jax.random.split(jax.random.key(0), members), zero, zero, zero, zero > 0
            )
        begin, step = make_step(loss, optimizer, steps, settings)
        state = place(jax.eval_shape(begin, shapes_of(module, members)), mesh)

        def run(state, batch):
            state, metrics = step(state, batch)
            return sharding.at_rest(state), metrics

        out.append(Program(stage, name, run, (state, data), steps, (0,)))

    for shape in e.policies:
        if e.sft.texts:
            b = e.sft.batch
            texts = tuple(
                batch(mesh, s, d) for s, d in (((b, p), ints), ((b, p), bools), ((b, r), ints), ((b, r), bools))
            )
            lm = lm_of(shape)
            steps = e.sft.epochs * (e.sft.texts // b)
            trained("sft", f"step, {label(shape)}", lm, objectives.sft(lm), e.sft.optimizer, steps, texts)
    gold = rm_of(e.gold.model)
    reads = p + r if e.gold.model.reads == "ids" else w.read_length
    if e.gold.kind in ("annotator", "people"):
        b = e.gold.batch
        if e.gold.kind == "people":
            pairs = batch(mesh, (b, 2, reads), ints), batch(mesh, (b, 2, reads), bools)
            trained(
                "gold",
                "step, as often as people's comparisons give",
                gold,
                objectives.preference(gold),
                e.gold.optimizer,
                0,
                pairs,
            )
        else:
            texts = tuple(
                batch(mesh, s, d) for s, d in (((b, p), ints), ((b, p), bools), ((b, r), ints), ((b, r), bools))
            )
            steps = e.gold.epochs * (e.gold.texts // b)
            data = (texts, batch(mesh, (b,), jnp.float32))
            trained("gold", "step", gold, objectives.regression(gold), e.gold.optimizer, steps, data)

    chunk = min(e.bon.chunk, e.bon.draws)
    prompt = batch(mesh, (p,), ints, None), batch(mesh, (p,), bools, None)
    drawn = batch(mesh, (e.bon.draws, r), ints, 0), batch(mesh, (e.bon.draws, r), bools, 0)

    def scored(stage: str, name: str, rm, length: int, calls: int):
        params = place(shapes_of(rm, stored=rm.shape.dtype), mesh)
        before = prompt if length == p + r else (batch(mesh, (0,), ints, None), batch(mesh, (0,), bools, None))
        rows = drawn if length == p + r else tuple(batch(mesh, (e.bon.draws, length), d, 0) for d in (ints, bools))
        fn = partial(inner(scoring.score_n), rm, chunk=chunk)
        beside = place(shapes_of(lm_of(e.policy), stored=e.policy.dtype), mesh) if stage == "samples" else ()
        out.append(Program(stage, name, fn, (params, *before, *rows), calls, beside=beside))

    for shape in e.policies:
        lm = lm_of(shape)
        fn = partial(inner(sample_n), lm, draws=e.bon.draws, length=r, eos=2, chunk=chunk)
        args = (place(shapes_of(lm, stored=shape.dtype), mesh), *prompt, a_key(mesh))
        more = e.comparisons.prompts * e.comparisons.pairs * 2 // e.bon.draws if shape == e.policy else 0
        name, rests = f"draw {e.bon.draws:,}, {label(shape)}", place(shapes_of(gold, stored=e.gold.model.dtype), mesh)
        out.append(Program("samples", name, fn, args, e.bon.prompts + more, beside=rests))
    more = e.comparisons.prompts * e.comparisons.pairs * 2 // e.bon.draws
    scored("samples", f"score {e.bon.draws:,} by gold", gold, reads, e.bon.prompts * len(e.policies) + more)

    every = range(len(e.proxies.sizes))
    for i in every:
        rm, sweeps = rm_of(e.proxies.sizes[i]), [s for s in e.proxies.sweeps if not s.sizes or i in s.sizes]
        optimizer, b = e.proxies.optimizer, e.proxies.batch
        for sweep in sweeps:
            members = len(sweep.recipes) * e.proxies.seeds
            steps = max(recipe.epochs * (recipe.comparisons // b) for recipe in sweep.recipes)
            data = tuple(batch(mesh, (members, b, 2, p + r), d, 1) for d in (ints, bools))
            trained(
                "proxies",
                f"step, {members} x {label(rm.shape)}",
                rm,
                objectives.proxy(rm, False),
                optimizer,
                steps,
                data,
                members,
            )
        calls = sum(len(s.recipes) * e.proxies.seeds for s in sweeps if s.best_of_n) * e.bon.prompts
        if calls:
            scored("bon", f"score {e.bon.draws:,}, {label(rm.shape)}", rm, p + r, calls)

    by_name = {sweep.name: sweep for sweep in e.proxies.sweeps}
    for against in e.ppo.against:
        sweep = by_name[against.sweep]
        for i in against.sizes or sweep.sizes or every:
            members = len(against.recipes or sweep.recipes) * len(against.kl_coefs) * e.proxies.seeds
            out += ppo_programs(e, mesh, lm_of(e.policy), rm_of(e.policy), rm_of(e.proxies.sizes[i]), gold, members)
    return out


def ppo_programs(e: config.Experiment, mesh: Mesh, lm, critic, proxy, gold, members: int) -> list[Program]:
    """One iteration of all members or, of policies that fill the machine, the three programs of one member's."""
    p, r = e.world.prompt, e.world.response
    large = ppo_loop.fills(lm.shape)
    s = ppo.Setup(lm, critic, proxy, gold, e.ppo, r, 2, side_by_side=not large, in_phases=large)
    many = lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct((members, *x.shape), x.dtype), tree)  # noqa: E731

    def number(dtype) -> Any:
        return jax.ShapeDtypeStruct((), dtype)

    state = jax.eval_shape(partial(ppo.begin, s), shapes_of(lm), shapes_of(critic))
    prompts = batch(mesh, (e.ppo.prompts, p), jnp.int32, None), batch(mesh, (e.ppo.prompts, p), jnp.bool_, None)
    shown = batch(mesh, (e.bon.prompts, p), jnp.int32, None), batch(mesh, (e.bon.prompts, p), jnp.bool_, None)
    frozen = ppo.Frozen(
        place(shapes_of(lm), mesh), place(shapes_of(gold, stored=gold.shape.dtype), mesh),
        scoring.Calibration(*(number(jnp.float32),) * 2), prompts, shown, number(jnp.float32),
    )  # fmt: skip
    calibration = scoring.Calibration(number(jnp.float32), number(jnp.float32))
    member = ppo.Member(shapes_of(proxy), calibration, jax.eval_shape(lambda: jax.random.key(0)), number(jnp.float32))
    runs, states = place(many(member), mesh), place(many(state), mesh)
    who, steps = f"{members} x {label(proxy.shape)}", e.ppo.max_steps
    climbers = f"one of {members} x {label(lm.shape)}"  # the same whatever they climb against
    read = Program("ppo", f"read, {who}", partial(inner(ppo_loop.read), s), (frozen, runs, states), s.reads)
    others = frozen._replace(gold=None)  # an iteration never sees gold, which rests beside it
    if not large:

        def fn(frozen, members, states):
            return ppo_loop.over_members(s, partial(ppo.iteration, s, frozen), members, states)

        return [Program("ppo", f"iteration, {who}", fn, (others, runs, states), steps, (2,), frozen.gold), read]
    m = number(jnp.int32)
    spread = partial(jax.tree.map, lambda x: batch(mesh, x.shape, x.dtype, 0 if x.ndim else None))
    draw, judge, learn = (partial(inner(f), s) for f in (ppo_loop.draw_one, ppo_loop.judge_one, ppo_loop.learn_one))
    with jax.set_mesh(mesh):
        drawn = spread(jax.eval_shape(draw, others, runs, states, m))
        rolled, out = jax.eval_shape(judge, others, runs, states, m, drawn)
        rolled = spread(rolled)
        _, seen = jax.eval_shape(lambda f, r, x: ppo.iteration(s, f, *pick((r, x), 0)), others, runs, states)
    last = jax.tree.map(lambda x: jax.ShapeDtypeStruct((members,), x.dtype), seen)
    calls = steps * members
    return [
        Program("ppo", f"sample, {climbers}", draw, (others, runs, states, m), calls, beside=frozen.gold),
        Program("ppo", f"score, one of {who}", judge, (others, runs, states, m, drawn), calls, beside=frozen.gold),
        Program("ppo", f"update, {climbers}", learn, (runs, states, last, m, rolled, out), calls, (1, 2), frozen),
        read,
    ]


def label(shape: config.Model) -> str:
    """A size for people: its checkpoint's name, or parameters inside the blocks."""
    if shape.checkpoint:
        return shape.checkpoint.rstrip("/").split("/")[-1]
    n = shape.weights
    return f"{n / 1e9:.1f}B" if n >= 1e9 else f"{n / 1e6:.1f}M" if n >= 1e6 else f"{n / 1e3:.0f}k"
