"""The world's annotator, from which gold learned, read beside gold: on pools, and on what optimised policies write.

Its scores are in its own standard deviations on the main policy's pool, as gold's are in gold's.
"""

import numpy as np

from rmo.artifacts.stages import Prompts, Samples
from rmo.experiment.run import Run
from rmo.rewards.calibration import Calibration
from rmo.worlds.world import Texts


def raw_scores(run: Run, prompts: Prompts, tokens_QDR: np.ndarray, mask_QDR: np.ndarray) -> np.ndarray:
    """The annotator's scores f64[Q, D] of D responses to each of Q prompts, as the world gives them."""
    asked = (np.repeat(x, tokens_QDR.shape[1], axis=0) for x in prompts)
    written = (x.reshape(-1, x.shape[-1]) for x in (tokens_QDR, mask_QDR))
    return run.world.score(Texts(*asked, *written)).reshape(tokens_QDR.shape[:2])


def raw_pool(run: Run, samples: Samples) -> np.ndarray:
    """The annotator's scores f64[Q, N] of a pool, made once in a process."""
    key = str(samples.directory)
    if key not in run.annotated_pools:
        found = []
        for q in range(run.experiment.bon.prompts):
            draws, asked = samples.draws(q), Prompts(*(x[q : q + 1] for x in samples.prompts))
            found.append(raw_scores(run, asked, draws.tokens[None], draws.mask[None])[0])
        run.annotated_pools[key] = np.stack(found)
    return run.annotated_pools[key]


def calibration(run: Run) -> Calibration:
    """Mean 0 and standard deviation 1 on the main policy's pool."""
    table = raw_pool(run, Samples(run.path("samples")))
    spread = float(table.std())
    return Calibration(float(table.mean()), 1 / spread if spread else 1.0)


def pool(run: Run, samples: Samples) -> np.ndarray:
    """Calibrated scores f64[Q, N] of a pool."""
    return calibration(run)(raw_pool(run, samples))


def responses(run: Run, tokens_QDR: np.ndarray, mask_QDR: np.ndarray) -> np.ndarray:
    """Calibrated scores f64[Q, D] of responses to the pool's prompts."""
    prompts = Samples(run.path("samples")).prompts
    return calibration(run)(raw_scores(run, prompts, tokens_QDR, mask_QDR))
