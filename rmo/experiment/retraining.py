"""New labels and new RMs in the middle of a method: pairs of policies as they are by now, labelled as the run's own,
and RMs of a reward's shape and recipe trained on them."""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmo.artifacts.stages import Comparisons
from rmo.config import Recipe
from rmo.config.checks import STOPPING, held_out_prompts
from rmo.config.names import trunk_name
from rmo.experiment.pool import Scored, stacked
from rmo.experiment.run import Run
from rmo.experiment.stages.comparisons import judged_pairs, preferred_first, score_gap, subset
from rmo.experiment.stages.proxies import Order, order_of, trained, validated
from rmo.methods.bench import OWN, Importance
from rmo.models import bulk_scoring, scoring
from rmo.models.transformer import Params, RewardModel
from rmo.rewards.calibration import Calibration, soft_label_scale
from rmo.rewards.reward import RewardParams
from rmo.runtime import hosts, sharding
from rmo.runtime.checkpointer import Checkpoints
from rmo.runtime.files import SCRATCH, RunError, read_npz, write_npz
from rmo.tracking.jsonl import Log
from rmo.training.importance import importance_weights
from rmo.training.update import pick
from rmo.worlds import comparisons as data

# Draws of each prompt of the pool that an RM's zero is read from. It moves proxy scores by a constant that no optimiser
# sees; of 32 prompts so many place it to a hundredth of a standard deviation.
ZERO_DRAWS = 256


def label(scored: Scored, out: Path, name: str, chosen: Sequence[int], policies: Params, size: int) -> None:
    """Pairs of each policy's responses, `size` to train on and as many prompts as the run holds out, labelled as
    the run's own; kept under a name in `out`. `chosen` are the rewards that these policies were optimised against.

    Raises:
      ConfigError: the world has too few prompts.
    """
    run, c = scored.run, scored.run.experiment.comparisons
    here, seeds = out / SCRATCH / name, [scored.rows()[i].seed for i in chosen]
    held = held_out_prompts(run.experiment)
    prompts = run.world.prompts(run.rng(f"prompts of {name}"), held - (-size // c.pairs), "comparisons")
    prompt = np.repeat(np.arange(len(prompts.tokens), dtype=np.int32), c.pairs)
    gold = run.load("gold", run.gold_rm())
    key = jax.random.fold_in(run.key(f"pairs of {name}"), scored.shape.weights % 2**32)
    for m, seed in enumerate(seeds):
        if not hosts.agree(np.bool_(labels_file(here, m).exists())):
            part = here / f"pairs-{m}"
            drawn = judged_pairs(run, pick(policies, m), gold, prompts, jax.random.fold_in(key, seed or 0), part, False)
            first_wins = data.label(run.rng(f"labels of {name}, seed {seed}"), score_gap(run, *drawn), c)
            rows = preferred_first(data.Comparisons(*drawn, prompt), first_wins)
            rows = subset(rows, np.r_[np.arange(size), np.arange(len(prompt) - held * c.pairs, len(prompt))])
            write_npz(labels_file(here, m), size=np.int64(size), **rows._asdict())


def labels_file(directory: Path, m: int) -> Path:
    return directory / f"{m}.npz"


def read_labels(file: Path) -> tuple[data.Comparisons, data.Comparisons]:
    """(comparisons to train on, those to be judged on) that `label` kept."""
    found = read_npz(file)
    size, rows = int(found["size"]), data.Comparisons(*(found[name] for name in data.Comparisons._fields))
    index = np.arange(len(rows.prompt))
    return subset(rows, index < size), subset(rows, index >= size)


def importance(
    scored: Scored, out: Path, name: str, chosen: Sequence[int], policies: Params, clip: float, flatten: float
) -> list[Importance]:
    """How much the comparisons that these rewards learned from at first count, and those held out from them, where RMs
    are to judge what these policies write; kept under a name in `out`. A pair's ratio is that of both of its
    responses, which the initial policy wrote."""
    run, here, every, found = scored.run, out / SCRATCH / name, scored.rows(), []
    initial = run.load("sft", run.lm(), master=True)
    for m, i in enumerate(chosen):
        file = labels_file(here, m)
        if not hosts.agree(np.bool_(file.exists())):
            both = own(run, scored.sweep.recipes[every[i].recipe_index], every[i].seed or 0)
            ratios = [log_ratios(run, pick(policies, m), initial, rows) for rows in both]
            weights = Importance(*(importance_weights(ratio_C, clip, flatten) for ratio_C in ratios))
            write_npz(file, **weights._asdict())
        found.append(Importance(**read_npz(file)))
    return found


def log_ratios(run: Run, policy: Params, initial: Params, rows: data.Comparisons) -> np.ndarray:
    """Log-probability of both responses under a policy less that under the initial one, f64[C]."""
    lm, prompt, chunk = run.lm(), run.experiment.world.prompt, run.experiment.bon.chunk
    texts = (rows.tokens.reshape(-1, rows.tokens.shape[-1]), rows.mask.reshape(-1, rows.mask.shape[-1]))
    now, then = (
        bulk_scoring.response_logps(lm, params, *texts, prompt, chunk).astype(np.float64)
        for params in (policy, initial)
    )
    return (now - then).reshape(-1, 2).sum(axis=1)


def retrained(
    scored: Scored,
    out: Path,
    name: str,
    chosen: Sequence[int],
    labels: Sequence[str],
    weights: Sequence[Importance] | None = None,
) -> RewardParams:
    """RMs like the rewards at these places, each trained on its own labels of these names, all in one program.

    With `weights`, which are of a reward's first labels alone, these do not count alike, nor do those that recipes
    which stop early are watched on (Sugiyama et al. 2007); calibration knows no weights.

    Calibrated as in paper section 2.2: zero is the mean on the initial policy's samples, the unit is where
    sigmoid(gap) fits gold's soft labels best on the held-out comparisons that came with the labels; on these too a
    recipe that stops early is watched, each member on its own.
    """
    run, here = scored.run, out / SCRATCH / name
    rm, reader = run.rm(scored.shape), run.reader(scored.proxies_stage, scored.shape)
    trunk = trunk_name(run.experiment, scored.size)
    seeds = [scored.rows()[i].seed for i in chosen]
    keys = jax.random.split(run.key(f"proxies of {name}"), run.experiment.proxies.seeds)[jnp.asarray(seeds)]
    first = run.first(rm, keys, f"trunks/{trunk}" if trunk else "")
    shapes = jax.eval_shape(first.init)
    placed = sharding.shardings_of(shapes, run.mesh)
    like = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, placed)
    everywhere = jax.sharding.NamedSharding(run.mesh, jax.sharding.PartitionSpec())
    unknown = jax.device_put(stacked([Calibration()] * len(chosen)), everywhere)
    done = Checkpoints(here / "done")
    (params, calibration), there = done.restore((like, unknown))
    if not there:
        rows, members, orders, held, held_weights = gathered(scored, out, name, chosen, labels, weights)
        places = each_alike(held, STOPPING)
        watched = [subset(of, at) for of, at in zip(held, places, strict=True)]
        log = Log(here, "proxies", max(order.steps for order in orders), mirrored=False)
        read, own_watched = reader.comparisons(rows), [reader.comparisons(of) for of in watched]
        together = data.Comparisons(*map(np.stack, zip(*own_watched, strict=True)))
        counted = [of[at] for of, at in zip(held_weights, places, strict=True)] if held_weights else []
        weights_MC = np.stack(counted) if counted else None
        params = trained(run, rm, first, read, members, orders, together, Checkpoints(here), log, weights_MC)
        zeros = zeros_of(scored, rm, params, len(chosen))
        units = [unit_of(scored, rm, params, m, reader.comparisons(own)) for m, own in enumerate(held)]
        found = stacked([Calibration(*both) for both in zip(zeros, units, strict=True)])
        calibration = jax.device_put(found, everywhere)
        done.save(1, (params, calibration))
    return RewardParams(params, calibration)


class Learned(NamedTuple):
    """What the members learn from, as one table."""

    rows: data.Comparisons
    members: list[tuple[Recipe, int]]
    orders: list[Order]
    held: list[data.Comparisons]  # of each member, what it is judged on
    held_weights: list[np.ndarray]  # of each member, how much these count; empty: all alike


def gathered(
    scored: Scored,
    out: Path,
    name: str,
    chosen: Sequence[int],
    labels: Sequence[str],
    weights: Sequence[Importance] | None = None,
) -> Learned:
    """The labels of these names, of each member its own: it trains on all of them, as often as its recipe says."""
    run, p, every = scored.run, scored.run.experiment.proxies, scored.rows()
    found = Learned(NOTHING, [], [], [], [])
    parts: list[data.Comparisons] = []
    start = 0
    for m, i in enumerate(chosen):
        recipe, seed = scored.sweep.recipes[every[i].recipe_index], every[i].seed or 0
        shares = [own(run, recipe, seed) if part == OWN else later(run, out, part, m, recipe, seed) for part in labels]
        size = sum(len(train.prompt) for train, _ in shares)
        recipe = dataclasses.replace(recipe, comparisons=size)
        batches = data.epochs(size, p.batch, run.seeds(f"order of {name}, seed {seed}"))
        sides = np.broadcast_to([0, 1], (start + size, 2))
        mine = None if weights is None else weights[m]
        order = Order(np.arange(start, start + size), sides, batches, p.steps_of(recipe))
        found.orders.append(order if mine is None else order._replace(weights=mine.train))
        found.members.append((recipe, seed))
        train, held = (joined(column) for column in zip(*shares, strict=True))
        new = new_to(train, held, run.experiment.world.prompt)
        found.held.append(subset(held, new))
        if mine is not None:
            found.held_weights.append(mine.held_out[new])
        parts += [train for train, _ in shares]
        start += size
    return found._replace(rows=joined(parts))


NOTHING = data.Comparisons(*[np.zeros(0)] * 4)


def joined(parts: Sequence[data.Comparisons]) -> data.Comparisons:
    return data.Comparisons(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def own(run: Run, recipe: Recipe, seed: int) -> tuple[data.Comparisons, data.Comparisons]:
    """(comparisons that a proxy of the run trains on, those that it is judged on), its label noise in them."""
    dataset = Comparisons(run.path("comparisons")).dataset
    train, held = (data.read_comparisons(dataset, split) for split in ("train", "validation"))
    order = order_of(run, train.prompt, recipe, seed)
    return turned(subset(train, order.used), order.sides[order.used, 0] == 1), held


def later(
    run: Run, out: Path, part: str, m: int, recipe: Recipe, seed: int
) -> tuple[data.Comparisons, data.Comparisons]:
    """The same of labels that were made on the way."""
    train, held = read_labels(labels_file(out / SCRATCH / part, m))
    noise = run.rng(f"flipped labels of {part}, seed {seed}").random(len(train.prompt))
    return turned(train, noise < recipe.flip), held


def each_alike(held: Sequence[data.Comparisons], most: int) -> list[np.ndarray]:
    """Places of as many comparisons of every member, at most so many, evenly from all of its own."""
    count = min(most, *(len(rows.prompt) for rows in held))
    return [np.linspace(0, len(rows.prompt) - 1, count).astype(np.int64) for rows in held]


def new_to(train: data.Comparisons, held: data.Comparisons, prompt_length: int) -> np.ndarray:
    """Which held-out comparisons are to prompts that none of those to train on is to, bool[C]. Rounds draw prompts anew
    from one stock, so that what one holds out another may train on.

    Raises:
      RunError: there are none.
    """
    seen = {prompt.tobytes() for prompt in train.tokens[:, 0, :prompt_length]}
    new = np.array([prompt.tobytes() not in seen for prompt in held.tokens[:, 0, :prompt_length]], bool)
    if not new.any():
        raise RunError(
            "every prompt of the held-out comparisons is trained on in some round: raise comparisons.prompts"
        )
    return new


def turned(rows: data.Comparisons, flipped_C: np.ndarray) -> data.Comparisons:
    """With the responses of some rows exchanged: their labels are wrong."""
    side_C = np.where(flipped_C[:, None], [[1, 0]], [[0, 1]])
    row_C = np.arange(len(side_C))[:, None]
    return rows._replace(
        tokens=rows.tokens[row_C, side_C], mask=rows.mask[row_C, side_C], gold=rows.gold[row_C, side_C]
    )


# Calibration.


def zeros_of(scored: Scored, rm: RewardModel, params: Params, members: int) -> np.ndarray:
    """Each member's mean raw score of the initial policy's samples, f64[M]."""
    e, reader = scored.run.experiment, scored.run.reader(scored.proxies_stage, scored.shape)
    draws = min(ZERO_DRAWS, e.bon.draws)
    score = partial(scoring.score_n, rm, chunk=math.gcd(draws, e.bon.chunk))

    @jax.jit
    def every_member(params: Params, *rows: jax.Array) -> jax.Array:
        return jax.lax.map(lambda one: jnp.mean(score(one, *rows)), params)

    means = []
    for q in range(e.bon.prompts):
        drawn, prompts = scored.samples.draws(q), scored.samples.prompts
        rows = prompts.tokens[q], prompts.mask[q], drawn.tokens[:draws], drawn.mask[:draws]
        means.append(hosts.fetch(every_member(params, *reader.rows(*rows))))
    return np.mean(np.array(means, np.float64).reshape(-1, members), axis=0)


def unit_of(scored: Scored, rm: RewardModel, params: Params, m: int, held: data.Comparisons) -> float:
    """Member m's scale, from its held-out comparisons."""
    run, logits = scored.run, scored.run.gold_logits
    raw_C2 = validated(run, rm, pick(params, np.array([m])), held, 1).scores[0]
    gold_C2 = run.gold_calibration()(held.gold)
    gap_C, gold_gap_C = (x[:, 0] - x[:, 1] for x in (raw_C2, gold_C2))
    return soft_label_scale(gap_C, gold_gap_C * logits) / logits
