"""An initial policy: next-token training on responses of the corpus (paper section 2: two epochs of SFT)."""

from pathlib import Path

import jax
import numpy as np

from rmo.artifacts.stages import Policy, PolicyInfo
from rmo.checkpoints import saved_model, tokenizers
from rmo.config.names import of_policy
from rmo.experiment.run import Run
from rmo.models import transformer
from rmo.models.transformer import Params
from rmo.runtime.checkpointer import Checkpoints
from rmo.tracking.jsonl import Log
from rmo.training import objectives
from rmo.training.loop import train
from rmo.training.update import Loss
from rmo.worlds import comparisons
from rmo.worlds.world import Texts


def initial_policy(run: Run, out: Path, policy: int = 0) -> None:
    """From random weights or a checkpoint, or the checkpoint as it stands. All policies see the same texts."""
    e, lm, files = run.experiment, run.lm(policy), Policy(out)
    tokenizers.save_tokenizer(run.world.tokenizer, files.tokenizer)
    first = run.first(lm, run.key("sft"))
    if not e.sft.texts and first.load:
        params = first.load()
        saved_model.save(out, lm, params, files.tokenizer)
        files.write(PolicyInfo(transformer.count(params), 0, None))
        return
    texts = run.world.demonstrations(run.rng("sft"), e.sft.texts)
    held_out = run.world.demonstrations(run.rng("sft held out"), 2048, held_out=True)
    loss = objectives.sft(lm)
    steps = e.sft.epochs * (e.sft.texts // e.sft.batch)
    rows = comparisons.epochs(e.sft.texts, e.sft.batch, run.seeds("sft order"))

    def batch_at(step: int) -> Texts:
        return texts.rows(rows(step))

    log = Log(out, of_policy("sft", policy, e), steps)
    params = train(first, loss, batch_at, steps, e.sft.optimizer, run.mesh, Checkpoints(out), log)
    saved_model.save(out, lm, params, files.tokenizer)
    files.write(PolicyInfo(transformer.count(params), steps, held_out_loss(loss, params, held_out)))


def held_out_loss(loss: Loss, params: Params, texts: Texts, batch: int = 256) -> float:
    """Mean over equal batches, weighted by tokens; what does not fill a batch is filled with rows that do not count."""
    total = 0.0
    run_loss, size = jax.jit(loss), len(texts.tokens)
    for start in range(0, size, batch):
        rows = texts.rows(np.arange(start, start + batch) % size)
        real = rows._replace(mask=rows.mask & (np.arange(start, start + batch) < size)[:, None])
        total += float(run_loss(params, real)[0]) * real.mask.sum()
    return float(total / texts.mask.sum())
