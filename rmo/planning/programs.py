"""The programs that an experiment runs, with the shapes of what they take: to be compiled without data or weights.

They call the stages' own functions, one function here for each stage (PPO's are in ppo_programs.py).

Not among them: the audit, the report, and what takes one call (drawing first weights, a random gold).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rmo import config
from rmo.config.checks import STOPPING
from rmo.config.names import sizes_of
from rmo.models import scoring
from rmo.models.sampling import Sampled, sample, sample_n
from rmo.models.transformer import LanguageModel, Params, RewardModel
from rmo.planning.ppo_programs import ppo
from rmo.planning.program import Program, Shape, Sketch, label, on_host, place, shapes_of, stacked, unjitted
from rmo.runtime import sharding
from rmo.runtime.files import Tree
from rmo.training import losses, objectives
from rmo.training.loop import VALIDATIONS, due_steps, keep_best
from rmo.training.update import Member, TrainState, make_step
from rmo.worlds.synthetic import EOS
from rmo.worlds.world import world_of

HELD_OUT_TEXTS, HELD_OUT_BATCH = 2048, 256  # on which SFT is judged
BLOCKS = 16  # in which gold's broad texts are drawn, each at its temperature


def programs(e: config.Experiment, mesh: Mesh) -> list[Program]:
    """The programs that an experiment spends its time in, in the order of the stages. Programs of one stage and name
    are the same but for what rests beside them.

    Raises:
      RunError: the experiment does not say how many tokens its policy has.
    """
    sketch = Sketch(e, mesh)
    stages = (sft, gold, samples, comparisons, trunks, proxies, scores, ppo)
    return [program for stage in stages for program in stage(sketch)]


def sft(sketch: Sketch) -> list[Program]:
    """Training of every policy, and its loss on held-out texts."""
    c = sketch.e.sft
    trained = sketch.e.policies if c.texts else ()
    return [program for shape in trained for program in language_model(sketch, "sft", shape, c)]


def trunks(sketch: Sketch) -> list[Program]:
    """Training of the language models that gold and proxies start from, and their loss on held-out texts."""
    p, g = sketch.e.proxies, sketch.e.gold
    used = {i for sweep in p.sweeps for i in sizes_of(sketch.e, sweep)}
    trained = [p.sizes[i] for i in sorted(used) if p.from_language_model(p.sizes[i])]
    every = [(g.model, g.trunk)] if g.start == "language_model" else []
    every += [(shape, p.trunk) for shape in trained]
    return [program for shape, c in every for program in language_model(sketch, "trunks", shape, c)]


def language_model(sketch: Sketch, stage: str, shape: config.Model, c: config.SFT) -> list[Program]:
    """Next-token training of one model, and its loss on held-out texts."""
    lm, w = sketch.lm(shape), sketch.e.world
    loss, steps = objectives.sft(lm), c.epochs * (c.texts // c.batch)
    state, step = training(sketch, lm, loss, c.optimizer, steps)
    held_out = *on_host(HELD_OUT_BATCH, w.prompt), *on_host(HELD_OUT_BATCH, w.response)
    calls = HELD_OUT_TEXTS // HELD_OUT_BATCH
    return [
        Program(stage, f"step, {label(shape)}", step, (state, sketch.texts(c.batch)), steps, (0,)),
        Program(stage, f"held-out loss, {label(shape)}", loss, (sketch.master(lm), held_out), calls),
    ]


def training(
    sketch: Sketch,
    module: LanguageModel | RewardModel,
    loss: Callable[..., Tree],
    optimizer: config.Optimizer,
    steps: int,
    settings: Member | None = None,
) -> tuple[TrainState, Callable[[Tree, Tree], Tree]]:
    """(state, step) of a training as `loop.train` runs it, of one model or of the members that `settings` has."""
    members = 0 if settings is None else settings.steps.shape[0]
    begin, step = make_step(loss, optimizer, steps, settings)
    state = place(jax.eval_shape(begin, stacked(shapes_of(module), members)), sketch.mesh)

    def resting(state: TrainState, batch: Tree) -> Tree:
        state, metrics = step(state, batch)
        return sharding.at_rest(state), metrics

    return state, resting


def gold(sketch: Sketch) -> list[Program]:
    """How gold is made: a checkpoint as it stands takes no program."""
    kind = sketch.e.gold.kind
    if kind == "people":
        return [people(sketch)]
    if kind == "annotator":
        return [broad_texts(sketch), *annotator(sketch)]
    return [broad_texts(sketch)] if kind == "random" and world_of(sketch.e.world).has_annotator else []


def broad_texts(sketch: Sketch) -> Program:
    """The policy's quarter of the texts that gold learns from, or is judged on."""
    w, lm = sketch.e.world, sketch.lm(sketch.e.policy)
    rows = -(-sketch.e.gold.texts // 4) // BLOCKS + 1

    def draw(params: Params, prompts: jax.Array, mask: jax.Array, keys: jax.Array, temperature: jax.Array) -> Sampled:
        return sample(lm, params, prompts, mask, keys, w.response, EOS, temperature)

    args = sketch.loaded(lm), *on_host(rows, w.prompt), sketch.keys(rows), Shape((), jnp.float32)
    return Program("gold", f"draw {rows:,}", draw, args, BLOCKS)


def annotator(sketch: Sketch) -> list[Program]:
    """Regression on the annotator's scores, and the scores of the texts held out."""
    c, rm = sketch.e.gold, sketch.rm(sketch.e.gold.model)
    steps = c.epochs * (c.train_texts // c.batch)
    state, step = training(sketch, rm, objectives.regression(rm), c.optimizer, steps)
    data = sketch.texts(c.batch), sketch.batch((c.batch,), jnp.float32)
    judged = held_out_scores(sketch, "gold", rm, c.held_out_texts, sketch.master(rm))
    return [Program("gold", "step", step, (state, data), steps, (0,)), judged]


def people(sketch: Sketch) -> Program:
    """Training on people's comparisons. How many there are, and so how many steps, is known once they are read."""
    c, rm = sketch.e.gold, sketch.rm(sketch.e.gold.model)
    state, step = training(sketch, rm, objectives.preference(rm), c.optimizer, 0)
    pairs = sketch.sequences((c.batch, 2, sketch.read_tokens(c.model)))
    return Program("gold", "step, as often as people's comparisons give", step, (state, pairs), 0, (0,))


def held_out_scores(
    sketch: Sketch, stage: str, rm: RewardModel, texts: int, params: Params, times: int = 1, beside: Tree = ()
) -> Program:
    """`bulk_scoring.score_all` of a number of texts, `times` over."""
    rows = min(sketch.e.bon.chunk, texts)
    args = params, *on_host(rows, sketch.read_tokens(rm.shape))
    calls = times * -(-texts // rows)
    return Program(stage, f"held-out scores, {label(rm.shape)}", partial(scoring.score, rm), args, calls, beside=beside)


def samples(sketch: Sketch) -> list[Program]:
    """Every policy's pool of draws, prompt by prompt, and gold's scores of it."""
    c, w, rm = sketch.e.bon, sketch.e.world, sketch.rm(sketch.e.gold.model)
    gold_params, chunk, out = sketch.loaded(rm), min(c.chunk, c.draws), []
    for shape in sketch.e.policies:
        lm = sketch.lm(shape)
        params = sketch.loaded(lm)
        draw = partial(unjitted(sample_n), lm, draws=c.draws, length=w.response, eos=EOS, chunk=chunk)
        score = partial(unjitted(scoring.score_n), rm, chunk=chunk)
        drawing = params, *on_host(w.prompt), sketch.key()
        judging = gold_params, *pool_rows(sketch, rm.shape, drawn_here=True)
        out += [
            Program("samples", f"draw {c.draws:,}, {label(shape)}", draw, drawing, c.prompts, beside=gold_params),
            Program("samples", f"score {c.draws:,} of {label(shape)}", score, judging, c.prompts, beside=params),
        ]
    return out


def pool_rows(sketch: Sketch, shape: config.Model, drawn_here: bool) -> tuple[Shape, Shape, Shape, Shape]:
    """(prompt, prompt mask, responses, their mask) of one prompt's draws, as `Reader.rows` gives them to `score_n`; an
    RM that reads text has them whole, under an empty prompt."""
    w, draws = sketch.e.world, sketch.e.bon.draws
    if shape.reads != "ids":
        return *on_host(0), *on_host(draws, sketch.read_tokens(shape))
    responses = sketch.sequences((draws, w.response)) if drawn_here else on_host(draws, w.response)
    return *on_host(w.prompt), *responses


def comparisons(sketch: Sketch) -> list[Program]:
    """Drawing of the policy's pairs, several prompts' at once, and gold's scores of them."""
    c, w = sketch.e.comparisons, sketch.e.world
    draws = 2 * c.pairs
    prompts = max(1, sketch.e.bon.chunk // draws)
    rows, calls = prompts * draws, -(-c.prompts // prompts)
    lm, rm = sketch.lm(sketch.e.policy), sketch.rm(sketch.e.gold.model)
    policy, gold_params = sketch.loaded(lm), sketch.loaded(rm)
    draw = partial(sample, lm, length=w.response, eos=EOS)
    drawing = policy, *on_host(rows, w.prompt), sketch.keys(rows)
    judging = gold_params, *on_host(rows, sketch.read_tokens(rm.shape))
    return [
        Program("comparisons", f"draw {rows:,}", draw, drawing, calls, beside=gold_params),
        Program("comparisons", f"score {rows:,}", partial(scoring.score, rm), judging, calls, beside=policy),
    ]


def proxies(sketch: Sketch) -> list[Program]:
    """Training of every sweep's proxies, early stopping, and the scores of the validation comparisons."""
    every = range(len(sketch.e.proxies.sizes))
    wanted = [(i, sweep) for i in every for sweep in sketch.e.proxies.sweeps if i in (sweep.sizes or every)]
    return [program for i, sweep in wanted for program in proxy(sketch, sketch.e.proxies.sizes[i], sweep)]


def proxy(sketch: Sketch, shape: config.Model, sweep: config.Sweep) -> list[Program]:
    """What one `proxies` stage runs."""
    p, c, rm = sketch.e.proxies, sketch.e.comparisons, sketch.rm(shape)
    settings = member_settings(p, sweep)
    members, steps = settings.steps.shape[0], int(jnp.max(settings.steps))
    noisy = any(recipe.dropout for recipe in sweep.recipes)
    stopping = any(map(p.stops_early, sweep.recipes))
    state, step = training(sketch, rm, objectives.proxy(rm, noisy), p.optimizer, steps, settings)
    data = sketch.sequences((members, p.batch, 2, sketch.read_tokens(shape)), axis=1)
    best = (sketch.everywhere(Shape((members,), jnp.float32)), state.params) if stopping else ()
    name = f"step, {members} x {label(shape)}"
    if noisy:
        name += ", with dropout"
    out = [Program("proxies", name, step, (state, data), steps, (0,), beside=best)]
    if stopping:
        out.append(early_stopping(sketch, rm, settings, state, best))
    held_out = round(c.prompts * c.held_out) * c.pairs * 2
    one = sketch.master(rm)
    return [*out, held_out_scores(sketch, "proxies", rm, held_out, one, members, beside=state.params)]


def member_settings(p: config.Proxies, sweep: config.Sweep) -> Member:
    """Settings of a sweep's members, every recipe with every seed."""
    recipes = [recipe for recipe in sweep.recipes for _ in range(p.seeds)]
    return Member(
        steps=jnp.asarray([p.steps_of(recipe) for recipe in recipes], jnp.int32),
        key=jax.random.split(jax.random.key(0), len(recipes)),
        weight_decay=jnp.asarray([recipe.weight_decay for recipe in recipes], jnp.float32),
        dropout=jnp.asarray([recipe.dropout for recipe in recipes], jnp.float32),
        smoothing=jnp.asarray([recipe.smoothing for recipe in recipes], jnp.float32),
        stop_early=jnp.asarray([p.stops_early(recipe) for recipe in recipes], bool),
    )


def early_stopping(sketch: Sketch, rm: RewardModel, settings: Member, state: TrainState, best: Tree) -> Program:
    """The validation that keeps each member's best parameters."""
    members = settings.steps.shape[0]

    def keep(best: Tree, params: Params, due: jax.Array, watched: tuple[jax.Array, jax.Array]) -> Tree:
        def validate(params: Params, held: Tree) -> jax.Array:
            return losses.preference(objectives.pair_scores(rm, params, *held))

        return keep_best(validate, False, best, params, due, watched)

    due_at = due_steps(settings, VALIDATIONS)
    calls = sum(bool(due_at(step).any()) for step in range(int(jnp.max(settings.steps))))
    watched = on_host(STOPPING, 2, sketch.read_tokens(rm.shape))
    args = best, state.params, Shape((members,), jnp.bool_), watched
    return Program("proxies", f"validate, {members} x {label(rm.shape)}", keep, args, calls, beside=state.opt_state)


def scores(sketch: Sketch) -> list[Program]:
    """Scores of the policies' pools, by all members of a `proxies` stage in one program."""
    p, every, out = sketch.e.proxies, range(len(sketch.e.proxies.sizes)), []
    for sweep in p.sweeps:
        for i in (sweep.sizes or every) if sweep.best_of_n else ():
            out.append(pool_scores(sketch, p.sizes[i], len(sweep.recipes) * p.seeds))
    for other in sketch.e.other_policies:  # against the main recipe alone
        for i in other.sizes or p.sweeps[0].sizes or every:
            out.append(pool_scores(sketch, p.sizes[i], p.seeds))
    return out


def pool_scores(sketch: Sketch, shape: config.Model, members: int) -> Program:
    """Scores of one prompt's draws by every member."""
    c, rm = sketch.e.bon, sketch.rm(shape)
    chunk = min(c.chunk, c.draws)

    def every_member(params: Params, *rows: jax.Array) -> jax.Array:
        def one(params: Params) -> jax.Array:
            return scoring.score_n(rm, params, *rows, chunk=chunk)

        return jax.lax.map(one, params)

    args = sketch.loaded(rm, members), *pool_rows(sketch, shape, drawn_here=False)
    return Program("scores", f"score {c.draws:,}, {members} x {label(shape)}", every_member, args, c.prompts)
