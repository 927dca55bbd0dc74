"""What takes less memory, by the stage or command that ran out of it."""

MEMORY = {
    "sft": "raise sft.optimizer.accumulate, lower sft.batch; policy.remat full, policy.dtype bfloat16",
    "gold": "raise gold.optimizer.accumulate, lower gold.batch, bon.chunk; gold.model.remat full, gold.model.dtype "
    "bfloat16",
    "samples": "lower bon.chunk; policy.dtype bfloat16",
    "comparisons": "lower bon.chunk; policy.dtype bfloat16",
    "proxies": "raise proxies.optimizer.accumulate, lower proxies.batch, proxies.seeds or the recipes of a sweep (they "
    "train side by side); remat full of proxies.sizes",
    "bon": "lower bon.chunk, on the host bon.draws or bon.prompts",
    "ppo": "set or lower ppo.chunk, raise ppo.minibatches or ppo.policy_optimizer.accumulate and "
    "ppo.critic_optimizer.accumulate, lower ppo.read_draws, fewer recipes or kl_coefs in ppo.against; policy.remat "
    "full, policy.dtype bfloat16",
    "fits": "lower fits.bootstrap",
    "rmo score": "lower --batch; --dtype bfloat16",
    "rmo sample": "lower --batch, --draws or --length; --dtype bfloat16",
}
# Stages whose programs run on all devices.
ACCELERATED = {"sft", "gold", "samples", "comparisons", "proxies", "bon", "ppo"}


def memory_advice(what: str) -> str:
    """Settings that take less memory in a stage (`ppo/w64x4`) or command (`rmo score`); empty where none is known."""
    kind = what.split("/")[0]
    advice = MEMORY.get(kind, "")
    if kind in ACCELERATED:
        advice += "; or more devices, --model-parallel N; `rmo plan CONFIG` says what each program takes"
    return advice
