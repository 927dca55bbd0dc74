"""Which settings take less memory, per kind of stage: the advice when it runs out."""

from rmo.methods import method as methods

ADVICE = {
    "sft": "raise sft.optimizer.accumulate, lower sft.batch; policy.remat full, policy.dtype bfloat16",
    "gold": "raise gold.optimizer.accumulate, lower gold.batch, bon.chunk; gold.model.remat full, gold.model.dtype "
    "bfloat16",
    "samples": "lower bon.chunk; policy.dtype bfloat16",
    "comparisons": "lower bon.chunk; policy.dtype bfloat16",
    "proxies": "raise proxies.optimizer.accumulate, lower proxies.batch, proxies.seeds or the recipes of a sweep (they "
    "train side by side); remat full of proxies.sizes",
    "scores": "lower bon.chunk, on the host bon.draws or bon.prompts",
    "fits": "lower fits.bootstrap",
}
ON_THE_HOST = ("fits", "report")
MORE = "; or more devices, --model-parallel N; `rmo plan CONFIG` says what each program takes"


def advice_for(stage: str) -> tuple[str, bool]:
    """(which settings take less, whether more devices help) for a stage of this name."""
    kind = stage.split("/")[0]
    advice = {**ADVICE, **{method.name: method.less_memory for method in methods.every()}}
    return advice.get(kind, ""), kind not in ON_THE_HOST
