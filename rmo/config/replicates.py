"""One config in several worlds: the experiment of each, and what it is called.

Each world's run is an experiment of its own, in a directory of its own: with the world of that seed, and with that many
added to the seed of every stage, so that replicates share no random number. `--world.seed 2 --seed 2` is the same run.
"""

import dataclasses

from rmo.config.experiment import ConfigError, Experiment


def replicates(e: Experiment) -> dict[str, Experiment]:
    """{directory within runs/: experiment}: one, in runs/<name>, or of `e.worlds` each in runs/<name>/world-<seed>.

    Raises:
      ConfigError: the world has no seed.
    """
    if not e.worlds:
        return {e.name: e}
    check_worlds(e)
    out = {}
    for seed in e.worlds:
        world = dataclasses.replace(e.world, seed=seed)  # type: ignore[call-arg]  # checked above
        name = f"world-{seed}"
        one = dataclasses.replace(e, name=f"{e.name}-{name}", world=world, seed=e.seed + seed, worlds=())
        out[f"{e.name}/{name}"] = one
    return out


def single(e: Experiment) -> tuple[str, Experiment]:
    """The one (directory, experiment) of a config.

    Raises:
      ConfigError: it runs in several worlds.
    """
    found = replicates(e)
    if len(found) > 1:
        seeds = ", ".join(map(str, e.worlds))
        raise ConfigError(f"{e.name} runs in the worlds {seeds}: give one of them, as --worlds {e.worlds[0]}")
    return next(iter(found.items()))


def check_worlds(e: Experiment) -> None:
    """Raises ConfigError where the worlds are not seeds of a world that is drawn from one, each once."""
    if not e.worlds:
        return
    if "seed" not in {field.name for field in dataclasses.fields(e.world)}:
        kind = type(e.world).__name__
        raise ConfigError(f"worlds is {e.worlds}: a {kind} has no `seed` that it is drawn from; leave worlds out")
    if len(set(e.worlds)) < len(e.worlds) or min(e.worlds) < 0:
        raise ConfigError(f"worlds is {e.worlds}: give seeds of at least 0, each once")
