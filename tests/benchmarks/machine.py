"""What this machine does at best, measured: float32 FLOP/s of a large matrix product, bytes per second of reading
weights once. Both frameworks are asked and the better answer counts, since it is the machine that is meant."""

import time

import numpy as np

SIZE, WIDE = 2048, 16384


def timed(product, a, b) -> float:
    product(a, b)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        product(a, b)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def rates(product, square, wide, vector) -> dict[str, float]:
    return {
        "flops": 2 * SIZE**3 / timed(product, square, square),
        "bytes_per_second": 4 * SIZE * WIDE / timed(product, wide, vector),
    }


def ours(case):
    import jax
    import jax.numpy as jnp

    make = lambda *shape: jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    product = jax.jit(lambda a, b: a @ b)
    ready = lambda a, b: product(a, b).block_until_ready()
    arrays = make(SIZE, SIZE), make(WIDE, SIZE), make(SIZE)
    return lambda: rates(ready, *arrays), dict


def peer(case):
    import torch

    make = lambda *shape: torch.tensor(np.random.default_rng(0).normal(size=shape), dtype=torch.float32)
    arrays = make(SIZE, SIZE), make(WIDE, SIZE), make(SIZE)
    return lambda: rates(torch.matmul, *arrays), dict
