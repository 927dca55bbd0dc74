"""Next-token training on responses of the corpus: how initial policies and the trunks of proxies come about."""

from pathlib import Path

import jax
import numpy as np

from rmo.artifacts.stages import Policy, PolicyInfo
from rmo.checkpoints import saved_model, tokenizers
from rmo.config import SFT
from rmo.experiment.run import Run
from rmo.models import transformer
from rmo.models.transformer import LanguageModel, Params
from rmo.runtime.checkpointer import Checkpoints
from rmo.tracking.jsonl import Log
from rmo.training import objectives
from rmo.training.loop import First, train
from rmo.training.update import Loss
from rmo.worlds import comparisons
from rmo.worlds.world import Texts

HELD_OUT = 2048  # texts that the loss is taken on in the end


def language_model(run: Run, out: Path, lm: LanguageModel, first: First, c: SFT, purpose: str, name: str) -> None:
    """Train on `c.texts` of the world's demonstrations; the model and the world's tokenizer are saved in `out`.

    Args:
      purpose: seeds the choice of texts and their order: equal purposes read the same ones.
      name: of its log.
    """
    files = Policy(out)
    tokenizers.save_tokenizer(run.world.tokenizer, files.tokenizer)
    texts = run.world.demonstrations(run.rng(purpose), c.texts)
    held_out = run.world.demonstrations(run.rng(f"{purpose} held out"), HELD_OUT, held_out=True)
    loss = objectives.sft(lm)
    steps = c.epochs * (c.texts // c.batch)
    rows = comparisons.epochs(c.texts, c.batch, run.seeds(f"{purpose} order"))

    def batch_at(step: int) -> Texts:
        return texts.rows(rows(step))

    params = train(first, loss, batch_at, steps, c.optimizer, run.mesh, Checkpoints(out), Log(out, name, steps))
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
