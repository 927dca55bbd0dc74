"""The names of the paper's two methods, for its own figures and claims: those are about these two and no others."""

BEST_OF_N = "bon"
PPO = "ppo"
