"""Real text only: prompts and demonstrations, read and tokenised with the policy's tokenizer."""

from pathlib import Path

from rmo import config
from rmo.checkpoints import hf, tokenizers
from rmo.experiment.run import Run, tokenizer_of
from rmo.runtime import hosts
from rmo.worlds import real_text, tokenization


def prompts(run: Run, out: Path) -> None:
    """Reads the sources, and refuses here what would stop a later stage, hours on."""
    e, c = run.experiment, run.experiment.world
    assert isinstance(c, config.Text)
    tokenizer = tokenizer_of(c.tokenizer or e.policy.checkpoint)
    if e.policy.checkpoint and not tokenization.extends(tokenizer_of(e.policy.checkpoint), tokenizer):
        raise hf.CheckpointError(f"{c.tokenizer} has other ids than the tokenizer of {e.policy.checkpoint}, the policy")
    if hosts.writer():
        info = real_text.write(c, tokenizer, e.policy.vocab or len(tokenizer), out)
        print(f"prompts: {info['prompts']:,} from {info['rows']}; {info['longer_than_prompt']:,} too long")
        if e.gold.comparisons:
            real_text.write_comparisons(e.gold.comparisons, c.tolerance, out)
    tokenizers.save_tokenizer(tokenizer, out / "tokenizer")
    for shape in (*e.policies, e.gold.model, *e.proxies.sizes):
        if shape.checkpoint:
            run.check_checkpoint(shape)
    needed = {"read": e.bon.prompts, "comparisons": e.comparisons.prompts, "optimise": e.ppo.prompts}
    for purpose, size in needed.items():
        run.world.prompts(run.rng(purpose), size, purpose)
