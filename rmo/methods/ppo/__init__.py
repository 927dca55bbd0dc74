"""RL by PPO. door.py: what rmo knows of it; update.py: one iteration; loop.py: iterations until gold is to be read."""
