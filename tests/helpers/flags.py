"""How tests have their programs compiled: fast, not to be fast, since they compile much and compute little."""

FAST = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false"  # a third of the time to compile PPO's programs
)
