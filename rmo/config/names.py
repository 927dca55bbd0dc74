"""What the parts of an experiment are called in the names of its stages."""

from collections.abc import Iterator

from rmo.config.ensembles import Ensemble
from rmo.config.experiment import Experiment, Sweep
from rmo.config.model import Model

GOLD_TRUNK = "gold"  # of the stage, after `trunks/`, that trains the language model which gold starts from
GOLD_SCORES = "gold"  # of the stage, after `scores/`, whose one reward is gold itself


def size_names(sizes: tuple[Model, ...]) -> list[str]:
    """w16x2: width 16, 2 layers; a second shape of one width and depth is w16x2.2. The digest knows the rest."""
    names = [f"w{shape.width}x{shape.layers}" for shape in sizes]
    repeats = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [name + (f".{k}" if k > 1 else "") for name, k in zip(names, repeats, strict=True)]


def policy_name(shape: Model) -> str:
    """p32x2: a policy of width 32 with 2 layers."""
    return f"p{shape.width}x{shape.layers}"


def of_policy(kind: str, policy: int, e: Experiment) -> str:
    """`sft` and `samples` of the main policy; another's shape follows a slash."""
    shape = e.policies[policy]
    return kind if policy == 0 else f"{kind}/{shape.width}x{shape.layers}"


def sizes_of(e: Experiment, sweep: Sweep) -> tuple[int, ...]:
    """Which of proxies.sizes a sweep trains."""
    return sweep.sizes or tuple(range(len(e.proxies.sizes)))


def sweep_named(e: Experiment, name: str) -> Sweep:
    return next(sweep for sweep in e.proxies.sweeps if sweep.name == name)


def proxies_name(e: Experiment, size: int, sweep: Sweep) -> str:
    """`w16x2-main`: of the stage that trains one size of a sweep, after `proxies/`."""
    return f"{size_names(e.proxies.sizes)[size]}-{sweep.name}"


def trunk_name(e: Experiment, size: int) -> str:
    """`w16x2`: of the stage that trains one size's trunk, after `trunks/`; empty where the size has none."""
    return size_names(e.proxies.sizes)[size] if e.proxies.from_language_model(e.proxies.sizes[size]) else ""


def scores_name(e: Experiment, size: int, sweep: Sweep, policy: int = 0) -> str:
    """`w16x2-main-p32x2`: of the stage that scores a policy's pool with those proxies, after `scores/`."""
    name = proxies_name(e, size, sweep)
    return f"{name}-{policy_name(e.policies[policy])}" if policy else name


def ensemble_name(c: Ensemble) -> str:
    """`ensemble-sizes`: of the stage that scores the pool with an ensemble over RM sizes, after `scores/`."""
    return f"ensemble-{c.name}"


def sizes_of_ensemble(e: Experiment, c: Ensemble) -> tuple[int, ...]:
    """Which of proxies.sizes an ensemble is made of."""
    return c.sizes or sizes_of(e, sweep_named(e, c.sweep))


def comparisons_name(sweep: Sweep) -> str:
    """`comparisons-main`: of the stage, after `scores/`, of a sweep's labels without an RM."""
    return f"comparisons-{sweep.name}"


def other_policies(e: Experiment) -> Iterator[tuple[int, int]]:
    """(policy, RM size) of every pair that the experiment's other policies ask for; all against the main recipe."""
    main = e.proxies.sweeps[0]
    for policy, other in enumerate(e.other_policies, start=1):
        for size in other.sizes or sizes_of(e, main):
            yield policy, size


def scored(e: Experiment) -> Iterator[tuple[int, Sweep, int]]:
    """(RM size, sweep, policy) of every `scores` stage: the main policy's first."""
    for sweep in e.proxies.sweeps:
        for size in sizes_of(e, sweep) if sweep.best_of_n else ():
            yield size, sweep, 0
    for policy, size in other_policies(e):
        yield size, e.proxies.sweeps[0], policy


def of_rewards(e: Experiment) -> Iterator[tuple[str, int]]:
    """(name after `scores/`, policy) of every stage that has scored a pool by rewards of RMs: those of sweeps, then
    ensembles over RM sizes."""
    for size, sweep, policy in scored(e):
        yield scores_name(e, size, sweep, policy), policy
    for c in e.ensembles:
        yield ensemble_name(c), 0
