"""What takes less memory, by the stage or command that ran out of it."""

from rmo.methods import method as methods

MEMORY = {
    "sft": "raise sft.optimizer.accumulate, lower sft.batch; policy.remat full, policy.dtype bfloat16",
    "gold": "raise gold.optimizer.accumulate, lower gold.batch, bon.chunk; gold.model.remat full, gold.model.dtype "
    "bfloat16",
    "samples": "lower bon.chunk; policy.dtype bfloat16",
    "comparisons": "lower bon.chunk; policy.dtype bfloat16",
    "trunks": "raise proxies.trunk.optimizer.accumulate, lower proxies.trunk.batch; remat full of proxies.sizes",
    "proxies": "raise proxies.optimizer.accumulate, lower proxies.batch, proxies.seeds or the recipes of a sweep (they "
    "train side by side); remat full of proxies.sizes",
    "scores": "lower bon.chunk, on the host bon.draws or bon.prompts",
    "fits": "lower fits.bootstrap",
    "rmo score": "lower --batch; --dtype bfloat16",
    "rmo sample": "lower --batch, --draws or --length; --dtype bfloat16",
}
# Stages whose programs run on all devices; those of methods do too.
ACCELERATED = {"sft", "gold", "samples", "comparisons", "trunks", "proxies", "scores"}


def memory_advice(what: str) -> str:
    """Settings that take less memory in a stage (`proxies/w64x4`) or command (`rmo score`); empty: none is known."""
    kind = what.split("/")[0]
    of_methods = {method.name: method.less_memory for method in methods.every()}
    advice = {**MEMORY, **of_methods}.get(kind, "")
    if kind in ACCELERATED or kind in of_methods:
        advice += "; or more devices, --model-parallel N; `rmo plan CONFIG` says what each program takes"
    return advice
