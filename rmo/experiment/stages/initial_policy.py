"""An initial policy: next-token training on responses of the corpus (paper section 2: two epochs of SFT)."""

from pathlib import Path

from rmo.artifacts.stages import Policy, PolicyInfo
from rmo.checkpoints import saved_model, tokenizers
from rmo.config.names import of_policy
from rmo.experiment.run import Run
from rmo.experiment.stages.language_model import language_model
from rmo.models import transformer


def initial_policy(run: Run, out: Path, policy: int = 0) -> None:
    """From random weights or a checkpoint, or the checkpoint as it stands. All policies see the same texts."""
    e, lm, files = run.experiment, run.lm(policy), Policy(out)
    first = run.first(lm, run.key("sft"))
    if not e.sft.texts and first.load:
        tokenizers.save_tokenizer(run.world.tokenizer, files.tokenizer)
        params = first.load()
        saved_model.save(out, lm, params, files.tokenizer)
        files.write(PolicyInfo(transformer.count(params), 0, None))
        return
    language_model(run, out, lm, first, e.sft, "sft", of_policy("sft", policy, e))
