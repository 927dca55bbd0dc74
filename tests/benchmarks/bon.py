"""Best-of-n from a table of scores: every n of a grid at once, alone; and the weights of one n against exact integers.

The peer computes what tlc4418's bon_sampling does, written here from its formula: the chance that the i-th draw is the
best of n is C(i - 1, n - 1) / C(N, n) in whole numbers, anew for every i. It is asked for a share of the i only.
"""

import numpy as np

PROMPTS, DRAWS, POINTS = 1000, 60_000, 60
EXACT, N, SHARE = 12_600, 4096, 0.01


def cases(top):
    table = {"table": True, "prompts": PROMPTS, "draws": DRAWS, "alone": True}
    return [
        {"name": f"{POINTS} n, {PROMPTS:,} prompts x {DRAWS:,} draws", "points": POINTS} | table,
        {"name": f"one n, {PROMPTS:,} prompts x {DRAWS:,} draws", "points": 1} | table,
        {"name": f"weights of n = {N:,} among {EXACT:,}", "table": False, "share": SHARE, "packages": False},
    ]


def asked() -> np.ndarray:
    """Which i the peer is asked for."""
    return np.arange(N, EXACT + 1, round(1 / SHARE))


def ours(case):
    from rmo.methods import best_of_n

    if not case["table"]:
        fresh = best_of_n.weights.__wrapped__  # without what it remembers
        return lambda: fresh(N, EXACT).size and None, lambda: {"weights": fresh(N, EXACT)[asked() - 1]}
    rng = np.random.default_rng(0)
    proxy, gold = (rng.normal(size=(case["prompts"], case["draws"])).astype(np.float32) for _ in range(2))
    ns = best_of_n.grid(case["draws"] // 2, case["points"])

    def run():
        best_of_n.weights.cache_clear()
        best_of_n.best_of_n(proxy, gold, ns)

    return run, dict


def peer(case):
    from fractions import Fraction
    from math import comb

    chances = lambda: [Fraction(comb(i - 1, N - 1), comb(EXACT, N)) for i in asked().tolist()]
    return lambda: chances() and None, lambda: {"weights": np.array([float(c) for c in chances()])}
