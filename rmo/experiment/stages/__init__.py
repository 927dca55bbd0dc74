"""The stages, one file each. Read them in this order: they are the whole experiment.

prompts (real text only), initial_policy, gold, samples, comparisons, proxies, scores, optimised (best-of-n, PPO and
every other method), fits, report. Each is a function `(run, directory, ...)` that fills its directory from those
before it; rmo/experiment/graph.py says how they depend on one another.
"""
