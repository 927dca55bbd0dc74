"""The pool: [Q, N] draws of an initial policy with gold scores, one pool for every reward (paper section 2)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rmo.artifacts.stages import Prompts, Samples
from rmo.config.names import of_policy
from rmo.experiment.run import Run
from rmo.models import scoring
from rmo.models.sampling import sample_n
from rmo.rewards.calibration import Calibration
from rmo.runtime import hosts
from rmo.runtime.files import RunError
from rmo.tracking.jsonl import Log, parts


def samples(run: Run, out: Path, policy: int = 0) -> None:
    """Every policy is read on the same prompts; gold is calibrated on the main policy's pool (paper section 2.2)."""
    e, lm, rm, files = run.experiment, run.lm(policy), run.gold_rm(), Samples(out)
    params, gold_params = run.load(of_policy("sft", policy, e), lm), run.load("gold", rm)
    prompts = run.world.prompts(run.rng("read prompts"), e.bon.prompts, "read")
    files.write_prompts(Prompts(*prompts))
    chunk, reader = min(e.bon.chunk, e.bon.draws), run.reader("gold", e.gold.model)
    dtype = np.uint8 if run.world.vocab <= 256 else np.int32

    def make(q: int) -> dict[str, np.ndarray]:
        prompt, mask = jnp.asarray(prompts.tokens[q]), jnp.asarray(prompts.mask[q])
        key = jax.random.fold_in(run.key("samples"), q)
        with log.timed("sample"):
            s = sample_n(lm, params, prompt, mask, key, e.bon.draws, e.world.response, run.world.eos, chunk)
            jax.block_until_ready(s)
        with log.timed("score"):
            scores = scoring.score_n(rm, gold_params, *reader.rows(prompt, mask, s.tokens, s.mask), chunk)
            made = hosts.fetch({"tokens": s.tokens, "mask": s.mask, "logps": s.logps.sum(1), "gold": scores})
        log.did(made["mask"].sum(), 0)
        return made | {"tokens": made["tokens"].astype(dtype)}

    log = Log(out, of_policy("samples", policy, e), e.bon.prompts, "prompt")
    table = np.stack([part["gold"] for part in parts(files.parts, e.bon.prompts, make, log)])
    if not table.std() > 0:
        raise RunError("gold gives every sample of the policy one score: is it the reward model that was meant?")
    shift, spread = float(table.mean(dtype=np.float64)), float(table.std(dtype=np.float64))
    files.write_calibration(Calibration(shift, 1 / spread))
