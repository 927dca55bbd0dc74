"""The names of the paper's two methods, for its own figures and claims: those are about these two and no others, but
for what it predicts of RLHF in rounds (section 4.3)."""

BEST_OF_N = "bon"
PPO = "ppo"
ROUNDS = "rounds"
