"""From the bench to arrays: what one stage of direct alignment starts from, all of its members in one program."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rmo.methods.bench import Arm, Bench, Comparisons, Pairs
from rmo.methods.climb import fills
from rmo.methods.direct import loop, update
from rmo.methods.direct.losses import LOSSES
from rmo.methods.direct.settings import Direct
from rmo.methods.ppo.setup import observer
from rmo.models.transformer import Params

HELD_OUT = 512  # comparisons, at most, that the implicit reward is judged on at every read


def align(bench: Bench, c: Direct, members: Sequence[Arm]) -> dict:
    """What `loop.train` found of all members, arrays [K, M, ...]; the policies are kept."""
    lm, reference = bench.policy()
    gold, rows = bench.gold(), bench.comparisons(sorted({arm.reward for arm in members}))
    orders = [order_of(bench, c, rows, arm.reward) for arm in members]
    prompts = bench.read_prompts()
    s = update.Setup(
        lm, gold.rm, c, prompts[0].shape[1], bench.length, bench.eos, max(map(len, orders)),
        side_by_side=jax.default_backend() != "cpu" and not fills(lm.shape), gold_reader=gold.reader,
    )  # fmt: skip
    on_device = partial(jax.tree.map, jnp.asarray)
    train, held = labelled(s, reference, rows.train), by_gold(rows.held_out)
    frozen = update.Frozen(
        reference, gold.params, on_device(gold.calibration), on_device(prompts), train,
        on_device((held.tokens, held.mask)),
    )  # fmt: skip
    tracker = bench.tracker(s.reads, "read")
    found, states = loop.train(
        s, frozen, tasks_of(bench, rows, orders, members), bench.mesh, bench.checkpoints, tracker,
        observe=observer(bench, c.read_draws),
    )  # fmt: skip
    bench.keep_policies(states.policy.params, len(members))
    return found


def labelled(s: update.Setup, reference: Params, pairs: Pairs) -> update.LabelledPairs:
    """Pairs on the device, with the reference's log-probabilities."""
    tokens, mask = jnp.asarray(pairs.tokens), jnp.asarray(pairs.mask)
    return update.LabelledPairs(tokens, mask, update.logps_of_all(s, reference, tokens, mask))


def by_gold(pairs: Pairs) -> Pairs:
    """The first of those that gold tells apart, the one with the higher gold score first: without label noise."""
    apart = np.flatnonzero(pairs.gold[:, 0] != pairs.gold[:, 1])[:HELD_OUT]
    side = np.argsort(-pairs.gold[apart], axis=1)
    return Pairs(*(x[apart[:, None], side] for x in pairs))


def order_of(bench: Bench, c: Direct, rows: Comparisons, row: int) -> np.ndarray:
    """Which training comparisons each step learns from, i32[S, B]: every epoch those of a row in another order, the
    short last batch dropped. All losses and betas have a row's own order: they differ in nothing else."""
    rng = bench.rng(f"direct order {bench.rewards[row].name}")
    used, each = rows.used[row], len(rows.used[row]) // c.batch
    epochs = [rng.permutation(used)[: each * c.batch].reshape(each, c.batch) for _ in range(c.epochs)]
    return np.concatenate(epochs).astype(np.int32)


def tasks_of(bench: Bench, rows: Comparisons, orders: Sequence[np.ndarray], members: Sequence[Arm]) -> update.Task:
    """What differs between the members; shorter orders are filled up, and never read beyond their end."""
    most, names = max(map(len, orders)), list(LOSSES)
    padded = [np.pad(order, [(0, most - len(order)), (0, 0)], mode="edge") for order in orders]
    seeds = jnp.asarray([bench.rewards[arm.reward].seed or 0 for arm in members])
    return update.Task(
        loss=jnp.asarray([names.index(str(arm.settings["loss"])) for arm in members], jnp.int32),
        beta=jnp.asarray([arm.settings.number("beta") for arm in members], jnp.float32),
        key=jax.vmap(partial(jax.random.fold_in, bench.key("direct")))(seeds),
        steps=jnp.asarray([len(order) for order in orders], jnp.int32),
        order=jnp.asarray(np.stack(padded)),
        sides=jnp.asarray(np.stack([rows.sides[arm.reward] for arm in members]), jnp.int32),
    )
