"""What each training minimises: a `train.Loss` of a model, for SFT, gold and the proxies (PPO's are in ppo.py)."""

import jax
import jax.numpy as jnp

from rmo.models import scoring
from rmo.models.sampling import join, response_stats
from rmo.models.transformer import LanguageModel, RewardModel
from rmo.training import losses
from rmo.training.update import Loss, Member


def sft(lm: LanguageModel) -> Loss:
    """Next-token loss on response tokens; a batch is (prompts, prompt mask, tokens, mask)."""

    def loss(params, batch):
        return losses.next_token(response_stats(lm, params, *batch)["logps"], batch[3]), {"tokens": batch[3].sum()}

    return loss


def regression(rm: RewardModel) -> Loss:
    """Squared error of the score; a batch is (texts, targets f32[B])."""

    def loss(params, batch):
        texts_B, target_B = batch
        return losses.squared_error(scoring.score(rm, params, *join(*texts_B)), target_B), {}

    return loss


def pair_scores(rm: RewardModel, params, tokens_B2T, mask_B2T, dropout=None) -> jax.Array:
    """Raw scores f32[B, 2] of comparisons."""
    tokens, mask = (x.reshape(-1, x.shape[-1]) for x in (tokens_B2T, mask_B2T))
    return scoring.score(rm, params, tokens, mask, dropout).reshape(-1, 2)


def preference(rm: RewardModel) -> Loss:
    """Preference loss; a batch is (tokens, mask) [B, 2, T], the preferred response first."""

    def loss(params, batch):
        scores = pair_scores(rm, params, *batch)
        return losses.preference(scores), {"accuracy": jnp.mean(scores[:, 0] > scores[:, 1])}

    return loss


def proxy(rm: RewardModel, noisy: bool):
    """Preference loss of one member of a sweep, by its own settings; `noisy`: with dropout. A batch is (tokens, mask)
    [B, 2, T], and where pairs do not count alike their weights f32[B]."""

    def loss(params, batch, m: Member, step):
        tokens, mask, *weight = batch
        dropout = (m.dropout, jax.random.fold_in(m.key, step)) if noisy else None
        scores = pair_scores(rm, params, tokens, mask, dropout)
        return losses.preference(scores, m.smoothing, *weight), {"accuracy": jnp.mean(scores[:, 0] > scores[:, 1])}

    return loss
