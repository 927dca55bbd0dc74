"""Proxy RMs, trained on the labelled comparisons: one epoch unless the config says otherwise (paper section 2.1)."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rmo import config
from rmo.analysis.curve_id import Settings
from rmo.artifacts.stages import Comparisons, Proxies, ProxyRow, Validation
from rmo.checkpoints import saved_model
from rmo.config import Model, Recipe, Sweep
from rmo.config.checks import STOPPING
from rmo.experiment.labelled import labels_of, usable
from rmo.experiment.run import Run
from rmo.models import bulk_scoring, metrics, transformer
from rmo.models.transformer import Params, RewardModel
from rmo.runtime.checkpointer import Checkpoints
from rmo.runtime.files import Row
from rmo.tracking.jsonl import Log
from rmo.training import losses, objectives
from rmo.training.loop import First, train
from rmo.training.update import Member, pick
from rmo.worlds import active_choice, confounding
from rmo.worlds import comparisons as data
from rmo.worlds.rm_reader import TextReader


class Order(NamedTuple):
    """What one member trains on: which comparisons, with which labels, in what order, for how long."""

    used: np.ndarray  # i[recipe.comparisons], rows of the training comparisons
    sides: np.ndarray  # i[C, 2], where the preferred and the other response are; flipped labels are noise
    batch: Callable[[int], np.ndarray]  # step -> places among `used`
    steps: int
    weights: np.ndarray | None = None  # f32[recipe.comparisons], how much each of `used` counts; None: all alike


def proxies(run: Run, out: Path, shape: Model, sweep: Sweep, name: str, trunk: str = "", first: str = "") -> None:
    """RMs of one shape: every recipe of the sweep with every seed, member r * seeds + s, in one vmapped program.

    A seed has the same first weights in every recipe, and draws its own comparisons and label noise. With the stage of
    a `trunk` those are one language model's for all seeds, but for the head. Recipes that need fewer steps than the
    longest rest at the end. The RMs of stage `first` choose for recipes with a `choice`, a mark for confounded ones.
    """
    p, rm, files = run.experiment.proxies, run.rm(shape), Proxies(out)
    tokenizer = run.own_tokenizer(shape, out)
    reader = run.reader(f"proxies/{name}", shape)
    dataset = Comparisons(run.path("comparisons")).dataset
    own = data.read_comparisons(dataset, "train")  # in the policy's tokens
    rows = reader.comparisons(own)
    members = [(recipe, seed) for recipe in sweep.recipes for seed in range(p.seeds)]
    gaps = {half: gaps_of(run, first, rm, half, rows) for half in halves(sweep)}
    mark = mark_of(run, own) if any(recipe.confounded for recipe in sweep.recipes) else None
    marked_C = mark.gaps(own) if mark else None
    orders = [order_of(run, rows.prompt, recipe, seed, gaps, marked_C) for recipe, seed in members]

    keys = jax.random.split(run.key("proxies"), p.seeds)[jnp.asarray([seed for _, seed in members])]
    watched, counts_MC = watched_of(run, rows, members, marked_C)
    log, first_params = Log(out, f"proxy {name}", max(order.steps for order in orders)), run.first(rm, keys, trunk)
    params = trained(run, rm, first_params, rows, members, orders, watched, Checkpoints(out), log, counts_MC)
    saved_model.save(out, rm, params, tokenizer, len(members))
    held = data.read_comparisons(dataset, "validation")
    validation = validated(run, rm, params, reader.comparisons(held), len(members))
    files.write_validation(validation)
    more = {}
    if isinstance(reader, TextReader):
        more = {"through_text": reader.drift(held.tokens[:1000, 0], held.mask[:1000, 0])}
    rows_out = [
        row_of(p, recipe, sweep, seed, order.steps, scores)
        for (recipe, seed), order, scores in zip(members, orders, validation.scores, strict=True)
    ]
    if mark:
        more |= {"mark": {"train": described(own, mark), "validation": described(held, mark)}}
        rows_out = [
            row._replace(marked_preferred=confounding.marked_preferred(scores, mark.gaps(held)))
            for row, scores in zip(rows_out, validation.scores, strict=True)
        ]
    files.write(transformer.count(jax.eval_shape(pick, params, 0)), rows_out, more)


def watched_of(
    run: Run, rows: data.Comparisons, members: list[tuple[Recipe, int]], marked_C: np.ndarray | None
) -> tuple[data.Comparisons, np.ndarray | None]:
    """What recipes that stop early are watched on, the last of the training comparisons, as they come. Where one of
    these is confounded, with a leading axis of members, and how much each counts, f32[M, C]: an RM of confounded
    comparisons is watched on such ones, with the same share."""
    last, stops_early = data.Comparisons(*(x[-STOPPING:] for x in rows)), run.experiment.proxies.stops_early
    if marked_C is None or not any(recipe.confounded and stops_early(recipe) for recipe, _ in members):
        return last, None

    def counts(recipe: Recipe, seed: int) -> np.ndarray:
        if not (recipe.confounded and stops_early(recipe)):
            return np.ones(len(last.prompt), np.float32)
        rng = run.rng(f"watched comparisons of seed {seed}")
        return confounding.watched(marked_C[-STOPPING:], recipe.confounded, rng)

    each = data.Comparisons(*(np.broadcast_to(x, (len(members), *x.shape)) for x in last))
    return each, np.stack([counts(recipe, seed) for recipe, seed in members])


def trained(
    run: Run,
    rm: RewardModel,
    first: First,
    rows: data.Comparisons,
    members: list[tuple[Recipe, int]],
    orders: list[Order],
    watched: data.Comparisons,
    checkpoints: Checkpoints,
    log: Log,
    watched_weights: np.ndarray | None = None,
) -> Params:
    """Members (recipe, seed) trained in one program, each on its own of these comparisons in its own order; `watched`
    are those that recipes which stop early are watched on, with a leading axis of members where each has its own, and
    then also weights f32[M, C] where they do not count alike."""
    p = run.experiment.proxies

    def batch_at(step: int) -> tuple[np.ndarray, ...]:
        places = [order.batch(min(step, order.steps - 1)) for order in orders]
        picks = [order.used[at] for order, at in zip(orders, places, strict=True)]
        index = np.stack(picks)
        side = np.stack([order.sides[chosen] for order, chosen in zip(orders, picks, strict=True)])
        batch = rows.tokens[index[..., None], side], rows.mask[index[..., None], side]
        weights = [order.weights[at] for order, at in zip(orders, places, strict=True) if order.weights is not None]
        return (*batch, np.stack(weights)) if weights else batch

    recipes = [recipe for recipe, _ in members]
    held = (watched.tokens, watched.mask)
    if watched_weights is not None:
        held = (*held, watched_weights)
    return train(
        first,
        objectives.proxy(rm, any(recipe.dropout for recipe in recipes)),
        batch_at,
        max(order.steps for order in orders),
        dataclasses.replace(p.optimizer, lr=p.optimizer.lr * 16 / rm.shape.width),
        run.mesh,
        checkpoints,
        log,
        settings_of(run, members, orders),
        partial(watched_loss, rm) if any(map(p.stops_early, recipes)) else None,
        held,
        apart=watched.tokens.ndim == 4,
    )


def halves(sweep: Sweep) -> list[Recipe]:
    """What the RMs that choose comparisons were trained with, once each."""
    return list(dict.fromkeys(recipe.first_half for recipe in sweep.recipes if recipe.choice))


def gaps_of(run: Run, first: str, rm: RewardModel, half: Recipe, rows: data.Comparisons) -> np.ndarray:
    """Preferred less other score f32[S, C] of all training comparisons by every seed of the RMs that choose."""
    p, members = run.experiment.proxies, Proxies(run.path(first)).rows()
    recipe = Settings.differing(p.named(half), Recipe(half.comparisons))
    chosen = [m for m, row in enumerate(members) if (row.comparisons, row.recipe) == (half.comparisons, recipe)]
    params = run.load(first, rm, len(members))
    flat = (rows.tokens.reshape(-1, rows.tokens.shape[-1]), rows.mask.reshape(-1, rows.mask.shape[-1]))
    pairs_S = [
        bulk_scoring.score_all(rm, pick(params, m), *flat, run.experiment.bon.chunk).reshape(-1, 2) for m in chosen
    ]
    return np.stack([pairs_C2[:, 0] - pairs_C2[:, 1] for pairs_C2 in pairs_S])


def mark_of(run: Run, rows: data.Comparisons) -> confounding.Mark:
    """The experiment's mark, from all training comparisons in the policy's tokens."""
    length, world = run.experiment.world.response, run.world
    return confounding.least_like_gold(rows, length, world.eos, world.vocab, run.rng("mark"))


def described(rows: data.Comparisons, mark: confounding.Mark) -> Row:
    """How the mark goes with gold within pairs, before any selection."""
    gap_C, gold_gap_C = mark.gaps(rows), (rows.gold[:, 0] - rows.gold[:, 1]).astype(np.float64)
    return {
        "correlation_with_gold": confounding.correlation(gap_C, gold_gap_C),
        "preferred_shows_more": float((gap_C > 0).mean()),
        "preferred_shows_less": float((gap_C < 0).mean()),
    }


def order_of(
    run: Run,
    prompt_C: np.ndarray,
    recipe: Recipe,
    seed: int,
    gaps: dict[Recipe, np.ndarray] | None = None,
    marked_C: np.ndarray | None = None,
) -> Order:
    """What one recipe and seed train on, of the training comparisons to these prompts. `gaps` f[S, C] are of those RMs
    that choose for recipes with a `choice`, `marked_C` is how much more of the mark the preferred response shows, for
    confounded ones."""
    p = run.experiment.proxies
    used, sides = labels_of(run, prompt_C, recipe, seed)
    if recipe.choice:
        assert gaps is not None
        half = gaps[recipe.first_half][:, : usable(p, recipe, len(prompt_C))]
        used = active_choice.spent(recipe.choice, used, half, seed, recipe.comparisons)
    if recipe.confounded:
        assert marked_C is not None
        rng, end = run.rng(f"comparisons of seed {seed}"), usable(p, recipe, len(prompt_C))
        used = confounding.drawn(marked_C[:end], recipe.comparisons, recipe.confounded, rng)
    order = data.epochs(len(used), p.batch, run.seeds(f"proxy order {seed}"))
    return Order(used, sides, order, p.steps_of(recipe))


def settings_of(run: Run, members: list[tuple[Recipe, int]], orders: list[Order]) -> Member:
    """What differs between the members of the one program."""
    optimizer, recipes = run.experiment.proxies.optimizer, [recipe for recipe, _ in members]
    seeds = jnp.asarray([seed for _, seed in members])
    return Member(
        steps=jnp.asarray([order.steps for order in orders], jnp.int32),
        key=jax.vmap(partial(jax.random.fold_in, run.key("dropout")))(seeds),
        weight_decay=jnp.asarray([r.weight_decay or optimizer.weight_decay for r in recipes], jnp.float32),
        dropout=jnp.asarray([r.dropout for r in recipes], jnp.float32),
        smoothing=jnp.asarray([r.smoothing for r in recipes], jnp.float32),
        stop_early=jnp.asarray([run.experiment.proxies.stops_early(r) for r in recipes], bool),
    )


def watched_loss(rm: RewardModel, params: Params, watched: tuple[jax.Array, ...]) -> jax.Array:
    """The loss that recipes which stop early watch, on comparisons that none of them trains on: (tokens, mask), and
    perhaps their weights."""
    tokens, mask, *weight = watched
    return losses.preference(objectives.pair_scores(rm, params, tokens, mask), 0.0, *weight)


def validated(run: Run, rm: RewardModel, params: Params, held: data.Comparisons, members: int) -> Validation:
    """Every member's scores of the held-out comparisons."""
    flat = (held.tokens.reshape(-1, held.tokens.shape[-1]), held.mask.reshape(-1, held.mask.shape[-1]))
    chunk = run.experiment.bon.chunk
    raw = [bulk_scoring.score_all(rm, pick(params, m), *flat, chunk).reshape(-1, 2) for m in range(members)]
    return Validation(np.stack(raw), held.gold, held.prompt)


def row_of(p: config.Proxies, recipe: Recipe, sweep: Sweep, seed: int, steps: int, scores_C2: np.ndarray) -> ProxyRow:
    """What is known of one member."""
    return ProxyRow(
        comparisons=recipe.comparisons,
        recipe=Settings.differing(p.named(recipe), Recipe(recipe.comparisons)),
        recipe_index=sweep.recipes.index(recipe),
        seed=seed,
        steps=steps,
        validation_loss=float(losses.preference(jnp.asarray(scores_C2))),
        validation_accuracy=metrics.accuracy(scores_C2),
    )
