"""How tests have their programs compiled: fast, not to be fast, since they compile much and compute little."""

EXACT = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# A third of the time to compile PPO's programs; but two programs in which the same is computed may round otherwise,
# which with fusion emitters, as users have them, they do not.
FAST = f"{EXACT} --xla_cpu_use_fusion_emitters=false"
