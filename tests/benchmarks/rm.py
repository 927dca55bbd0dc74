"""Training reward models on comparisons: the step that `rmo.training.loop` jits against TRL's `RewardTrainer`, the same weights,
pairs, lengths and optimizer; and several RMs of one shape as one program against one after another.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.sample import SHAPES, weights, words

PAIRS, LENGTH, STEPS = 32, 96, 4
SWEEP = {"members": 8, "pairs": 64, "steps": 40}
TINY = Path(__file__).parents[2] / "configs" / "tiny.py"


def cases(top: Path) -> list[dict[str, Any]]:
    from tests.helpers.checkpoints import write_checkpoint

    family, values = SHAPES["8.9M"]
    write_checkpoint(top / "rm", family, "rm", **values)
    # A backward pass costs two forward ones; attention's own products are not counted.
    one = {
        "name": f"8.9M, {STEPS} steps of {PAIRS} pairs of {LENGTH} tokens", "checkpoint": str(top / "rm"),
        "flops": 3 * 2 * weights("8.9M")[0] * STEPS * PAIRS * 2 * LENGTH,
    }  # fmt: skip
    from rmo.config import checks

    sizes = checks.load(TINY).proxies.sizes
    sweep = [
        {"name": f"{SWEEP['members']} RMs of width {size.width} x {size.layers}: one program, one after another",
         "packages": False, "size": i, "tolerance": 5e-3, **SWEEP}  # rounding grows over its steps
        for i, size in enumerate(sizes)
    ]  # fmt: skip
    return [one, *sweep]


def comparisons() -> np.ndarray:
    """i64[steps, pairs, 2, T], the preferred response first."""
    vocab = SHAPES["8.9M"][1]["vocab_size"]
    return np.random.default_rng(0).integers(3, vocab, (STEPS, PAIRS, 2, LENGTH))


def ours(case):
    if "size" in case:
        return sweep(case, as_one=True)
    import jax
    import jax.numpy as jnp

    from rmo import config
    from rmo.checkpoints import hf
    from rmo.training import objectives
    from rmo.training.update import make_step

    rm, params = hf.load_reward_model(case["checkpoint"])
    batches = [(jnp.asarray(b, jnp.int32), jnp.ones(b.shape, bool)) for b in comparisons()]
    optimizer = config.Optimizer(lr=1e-5, warmup=0, schedule="constant", weight_decay=0.0, b1=0.9, b2=0.999, eps=1e-8)
    begin, step = make_step(objectives.preference(rm), optimizer, STEPS)
    step_fn = jax.jit(step, donate_argnums=0)

    def run() -> dict[str, np.ndarray]:
        state, found = begin(jax.tree.map(jnp.copy, params)), []
        for batch in batches:
            state, metrics = step_fn(state, batch)
            found.append(metrics["loss"])
            np.asarray(found[-2:][0])  # as `train` does: at most two steps are on their way
        return {"losses": np.asarray(found)}

    return lambda: run() and None, run


def peer(case):
    if "size" in case:
        return sweep(case, as_one=False)
    import tempfile
    import time

    import torch
    import transformers
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = comparisons().reshape(-1, 2, LENGTH)
    dataset = Dataset.from_dict({"chosen_ids": rows[:, 0].tolist(), "rejected_ids": rows[:, 1].tolist()})
    begun = transformers.AutoModelForSequenceClassification.from_pretrained(case["checkpoint"], num_labels=1)
    weights_of = {name: x.clone() for name, x in begun.state_dict().items()}

    class InOrder(RewardTrainer):
        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    class Clock(transformers.TrainerCallback):
        def __init__(self):
            self.losses = []

        def on_train_begin(self, *_, **__):
            self.started = time.perf_counter()

        def on_step_end(self, *_, **__):
            self.ended = time.perf_counter()

        def on_log(self, args, state, control, logs=None, **_):
            if logs and "loss" in logs:
                self.losses.append(logs["loss"])

    top = tempfile.mkdtemp()
    args = RewardConfig(
        output_dir=top, per_device_train_batch_size=PAIRS, max_steps=STEPS, learning_rate=1e-5, max_length=LENGTH,
        lr_scheduler_type="constant", use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
        save_strategy="no", logging_steps=1, disable_tqdm=True, center_rewards_coefficient=None, disable_dropout=True,
        max_grad_norm=1.0, weight_decay=0.0, dataloader_num_workers=0,
    )  # fmt: skip

    def train() -> Clock:
        begun.load_state_dict(weights_of)
        clock = Clock()
        trainer = InOrder(begun, args=args, processing_class=words("8.9M"), train_dataset=dataset, callbacks=[clock])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        return clock

    def run():
        clock = train()
        return {"seconds": clock.ended - clock.started}

    return run, lambda: {"losses": np.asarray(train().losses)}


def sweep(case, as_one: bool):
    """Training `members` RMs on their own draws of comparisons, as the stage `proxies` does, or each by itself."""
    import jax
    import jax.numpy as jnp

    from rmo.config import checks
    from rmo.models import transformer
    from rmo.training import objectives
    from rmo.training.update import Member, make_step

    e = checks.load(TINY)
    w, shape, (members, pairs, steps) = e.world, e.proxies.sizes[case["size"]], (case[k] for k in SWEEP)
    length = w.prompt + w.response
    rm = transformer.RewardModel(shape, w.vocab, length)
    tokens = np.random.default_rng(0).integers(3, w.vocab, (4096, 2, length)).astype(np.int32)
    mask = np.ones(tokens.shape, bool)
    rows = np.stack([np.random.default_rng(1 + m).integers(4096, size=(steps, pairs)) for m in range(members)], axis=1)
    optimizer = replace(e.proxies.optimizer, lr=e.proxies.optimizer.lr * 16 / shape.width)

    def program(m: int):
        keys = jnp.stack([jax.random.key(0)] * m)
        settings = Member(jnp.full(m, steps), keys, *(jnp.zeros(m) for _ in range(3)), jnp.zeros(m, bool))
        begin, step = make_step(objectives.proxy(rm, False), optimizer, steps, settings)
        return jax.jit(jax.vmap(lambda key: transformer.init(rm, key))), jax.jit(begin), jax.jit(step, donate_argnums=0)

    init, begin, step = program(members if as_one else 1)

    def train(which: slice) -> np.ndarray:
        state = begin(init(jax.vmap(jax.random.key)(jnp.arange(members)[which])))
        losses = []
        for s in range(steps):
            index = rows[s, which]
            state, metrics = step(state, (tokens[index], mask[index]))
            losses.append(metrics["loss"])
        return np.asarray(losses)

    def run() -> dict[str, np.ndarray]:
        groups = [slice(0, members)] if as_one else [slice(m, m + 1) for m in range(members)]
        return {"losses": np.concatenate([train(group) for group in groups], axis=1)}

    return lambda: run() and None, run
