"""How tests have their programs compiled: fast, not to be fast, since they compile much and compute little."""

from importlib.metadata import version

EXACT = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# A third of the time to compile PPO's programs; but two programs in which the same is computed may round otherwise,
# which with fusion emitters, as users have them, they do not.
# XLA dies of a flag that it does not know, and from jaxlib 0.11 on it does not know this one.
KNOWN = tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11)
FAST = f"{EXACT} --xla_cpu_use_fusion_emitters=false" if KNOWN else EXACT
