"""Loading a config file, and refusing what cannot work in one line, before any work starts."""

import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Any

from rmo import config
from rmo.runtime import errors

STOPPING = 1000  # training comparisons that early stopping watches


def load(path: str | Path) -> config.Experiment:
    """Run a config file and return its `experiment()`.

    Raises:
      config.ConfigError: the file is missing, fails, or does not expose `experiment() -> Experiment`.
    """
    path = Path(path)
    if path.is_dir():
        raise config.ConfigError(
            f"{path} is a directory: give the config file, such as configs/tiny.py, and its options"
        )
    if not path.is_file():
        named = Path("configs") / f"{path.stem}.py"
        near = f"; perhaps {named}" if named.is_file() else errors.instead(path)
        raise config.ConfigError(f"no config file {path}{near} (a .py file that defines experiment())")
    spec = importlib.util.spec_from_file_location(f"rmo_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise config.ConfigError(f"{path} is not a Python file: configs are .py files that define experiment()")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        experiment = module.experiment() if hasattr(module, "experiment") else None
    except Exception as error:
        raise config.ConfigError(errors.in_file(path, error, vars(config))) from error
    if not isinstance(experiment, config.Experiment):
        found = f"experiment() returned {type(experiment).__name__}" if experiment is not None else "no experiment()"
        raise config.ConfigError(f"{path}: {found}; a config file defines experiment() -> Experiment")
    check(experiment)
    return experiment


def check(experiment: config.Experiment) -> None:
    """Refuse what cannot work.

    Raises:
      config.ConfigError: one line that names the field, its value and the remedy.
    """

    # Their checks stand beside them, in rooms above this one.
    from rmo.experiment.gold import check as check_gold
    from rmo.worlds.world import check as check_world

    def need(ok: bool, message: str) -> None:
        if not ok:
            raise config.ConfigError(message)

    may_be_zero = {
        "seed", "sft.texts", "comparisons.flip", "ppo.chunk", "fits.min_d",
        *(f"world.{name}" for name in experiment.world.may_be_zero),
    }  # fmt: skip
    may_be_zero_anywhere = {
        "kv_heads", "head", "hidden", "query_scale", "attention_cap", "logit_cap", "window", "warmup", "weight_decay",
        "vocab", "length",
    }  # fmt: skip

    def positive(owner: Any, path: str) -> None:
        for item in dataclasses.fields(owner):
            value, where = getattr(owner, item.name), f"{path}{item.name}"
            if dataclasses.is_dataclass(value):
                positive(value, where + ".")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                need(math.isfinite(value), f"{where} is {value}: it must be finite")
                if (
                    where in may_be_zero
                    or item.name in may_be_zero_anywhere
                    or isinstance(owner, config.Recipe | config.Combined | config.MethodSettings)
                ):
                    need(value >= 0, f"{where} is {value}: it must be at least 0")
                else:
                    need(value > 0, f"{where} is {value}: it must be positive")
            elif isinstance(value, tuple):
                for index, entry in enumerate(value):
                    if dataclasses.is_dataclass(entry):
                        positive(entry, f"{where}.{index}.")

    def model(shape: config.Model, where: str) -> None:
        need(
            bool(shape.head) or shape.width % shape.heads == 0,
            f"{where}.heads is {shape.heads}: it must divide width {shape.width}, unless head is given",
        )
        kv = shape.kv_heads or shape.heads
        need(shape.heads % kv == 0, f"{where}.kv_heads is {kv}: it must divide heads {shape.heads}")
        need(shape.rotary_share <= 1, f"{where}.rotary_share is {shape.rotary_share}: it is a share, at most 1")
        need(
            shape.positions == "learned" or shape.rotary_width % 2 == 0,
            f"{where}: rotary positions need an even head size, not {shape.rotary_width}",
        )
        need(
            len(shape.rotary_scaling) in (0, 4),
            f"{where}.rotary_scaling has {len(shape.rotary_scaling)} numbers: it needs factor, low and high frequency "
            "factor and original context, or none",
        )

    def indices(given: tuple[int, ...], owners: tuple, where: str, what: str) -> None:
        for index in given:
            need(0 <= index < len(owners), f"{where} has {index}: {what} holds indices 0 to {len(owners) - 1}")

    e = experiment
    positive(e, "")
    need(bool(e.name) and "/" not in e.name, f"name is {e.name!r}: it names a directory, so no slashes and not empty")
    model(e.policy, "policy")
    model(e.gold.model, "gold.model")
    for index, size in enumerate(e.proxies.sizes):
        model(size, f"proxies.sizes.{index}")
    need(bool(e.proxies.sizes), "proxies.sizes is empty: at least one proxy is needed")
    counts = {s.weights for s in e.proxies.sizes}
    need(
        len(counts) == len(e.proxies.sizes),
        "proxies.sizes holds two shapes with one parameter count: curves are told apart by it; for repeats use seeds",
    )
    held_out = round(e.comparisons.prompts * e.comparisons.held_out)
    need(
        0 < held_out < e.comparisons.prompts,
        f"comparisons.held_out is {e.comparisons.held_out}: it must leave prompts on both sides",
    )
    available = (e.comparisons.prompts - held_out) * e.comparisons.pairs
    train_prompts = e.comparisons.prompts - held_out
    sweeps = {sweep.name: sweep for sweep in e.proxies.sweeps}
    for where, group in (("proxies.sweeps", e.proxies.sweeps), ("ppo.against", e.ppo.against)):
        names = [x.name for x in group]
        need(len(set(names)) == len(names), f"{where} has two entries of one name: {', '.join(names)}")
        need(all(n and "/" not in n for n in names), f"{where}: names are part of directory names, so no slashes")
    for w, sweep in enumerate(e.proxies.sweeps):
        indices(sweep.sizes, e.proxies.sizes, f"proxies.sweeps.{w}.sizes", "proxies.sizes")
        need(bool(sweep.recipes), f"proxies.sweeps.{w}.recipes is empty: a proxy needs comparisons to learn from")
        need(len(set(sweep.recipes)) == len(sweep.recipes), f"proxies.sweeps.{w}.recipes holds one recipe twice")
        for r, recipe in enumerate(sweep.recipes):
            where = f"proxies.sweeps.{w}.recipes.{r}"
            need(
                e.proxies.batch <= recipe.comparisons <= available,
                f"{where}.comparisons is {recipe.comparisons}: it must lie between proxies.batch ({e.proxies.batch}) "
                f"and the {available} training comparisons; raise comparisons.prompts or comparisons.pairs",
            )
            need(
                recipe.prompts == 0
                or (recipe.comparisons % recipe.prompts == 0 and recipe.prompts <= train_prompts
                    and recipe.comparisons // recipe.prompts <= e.comparisons.pairs),
                f"{where}.prompts is {recipe.prompts}: it must divide {recipe.comparisons} comparisons, leave at most "
                f"{e.comparisons.pairs} (comparisons.pairs) to each and not exceed {train_prompts} training prompts",
            )  # fmt: skip
            for name, end in (("flip", 0.5), ("dropout", 1), ("smoothing", 0.5)):
                value = getattr(recipe, name)
                need(value < end, f"{where}.{name} is {value}: it must lie in [0, {end})")
            need(
                not (recipe.stop_early and recipe.flip),
                f"{where} has stop_early and flip: the comparisons that it would watch have clean labels; use one",
            )
            need(
                not recipe.stop_early or recipe.comparisons + STOPPING <= available,
                f"{where}.stop_early needs {STOPPING} training comparisons beside the {recipe.comparisons} it uses",
            )
        names = [c.name for c in sweep.combined]
        where = f"proxies.sweeps.{w}.combined"
        need(len(set(names)) == len(names), f"{where} has two entries of one name: {', '.join(names)}")
        need(all(n and "/" not in n for n in names), f"{where}: names are part of directory names, so no slashes")
        for c in sweep.combined:
            indices((c.recipe,), sweep.recipes, f"{where}.recipe", f"the recipes of sweep {sweep.name}")
            indices(c.seeds, tuple(range(e.proxies.seeds)), f"{where}.seeds", "proxies.seeds")
    need(bool(e.proxies.sweeps) and e.proxies.sweeps[0].best_of_n, "proxies.sweeps: the first is best-of-n's main one")
    for i, other in enumerate(e.other_policies):
        model(other.model, f"other_policies.{i}.model")
        indices(other.sizes, e.proxies.sizes, f"other_policies.{i}.sizes", "proxies.sizes")
    shapes = [s.weights for s in e.policies]
    need(
        len(set(shapes)) == len(shapes),
        "other_policies holds a shape with another policy's parameter count: curves are told apart by it",
    )
    every = range(len(e.proxies.sizes))
    have = [(i, recipe) for w in e.proxies.sweeps for i in w.sizes or every for recipe in w.recipes]
    need(len(set(have)) == len(have), "proxies.sweeps trains one size with one recipe twice: for repeats use seeds")
    runs = [
        (i, sweeps[a.sweep].recipes[r], coef, a.lr_scale)
        for a in e.ppo.against if a.sweep in sweeps
        for i in a.sizes or sweeps[a.sweep].sizes or every
        for r in a.recipes or range(len(sweeps[a.sweep].recipes)) if r < len(sweeps[a.sweep].recipes)
        for coef in a.kl_coefs
    ]  # fmt: skip
    need(
        len(set(runs)) == len(runs),
        "ppo.against optimises one proxy twice with equal settings: for repeats use seeds",
    )
    for i, against in enumerate(e.ppo.against):
        where = f"ppo.against.{i}"
        need(against.sweep in sweeps, f"{where}.sweep is {against.sweep!r}: proxies.sweeps has {', '.join(sweeps)}")
        sweep = sweeps[against.sweep]
        need(sweep.best_of_n, f"{where}.sweep is {against.sweep!r}, which has no best-of-n: PPO needs its calibration")
        indices(against.combined, sweep.combined, f"{where}.combined", f"the combined rewards of sweep {sweep.name}")
        indices(against.recipes, sweep.recipes, f"{where}.recipes", f"the recipes of sweep {sweep.name}")
        have = sweep.sizes or tuple(range(len(e.proxies.sizes)))
        need(set(against.sizes) <= set(have), f"{where}.sizes is {against.sizes}: sweep {sweep.name} has sizes {have}")
        need(
            bool(against.kl_coefs) and min(against.kl_coefs) >= 0, f"{where}.kl_coefs must be at least 0, and not none"
        )
    need(0 <= e.comparisons.flip < 0.5, f"comparisons.flip is {e.comparisons.flip}: it must lie in [0, 0.5)")
    check_world(e, need)
    check_gold(e, need)
    if e.sft.texts:
        need(e.sft.texts >= e.sft.batch, f"sft.texts is {e.sft.texts}: it must be at least one batch ({e.sft.batch})")
    else:
        need(all(s.checkpoint for s in e.policies), "sft.texts is 0: a policy without a checkpoint must be trained")
    need(
        e.bon.max_n <= e.bon.draws, f"bon.max_n is {e.bon.max_n}: it is larger than the {e.bon.draws} draws (bon.draws)"
    )
    chunk = min(e.bon.chunk, e.bon.draws)
    need(e.bon.draws % chunk == 0, f"bon.chunk is {chunk}: it must divide bon.draws {e.bon.draws}")
    need(e.bon.prompts >= 2, f"bon.prompts is {e.bon.prompts}: standard errors over prompts need at least 2")
    need(e.bon.points >= 4, f"bon.points is {e.bon.points}: a curve needs at least 4")
    need(e.bon.max_n >= 8, f"bon.max_n is {e.bon.max_n}: a curve needs at least 8")
    need(
        e.ppo.batch % e.ppo.minibatches == 0,
        f"ppo.minibatches is {e.ppo.minibatches}: it must divide ppo.batch {e.ppo.batch}",
    )
    need(
        not e.ppo.chunk or e.ppo.batch % e.ppo.chunk == 0,
        f"ppo.chunk is {e.ppo.chunk}: it must divide ppo.batch {e.ppo.batch}",
    )
    small = e.ppo.batch // e.ppo.minibatches
    batches = {
        "sft.optimizer": (e.sft.optimizer, e.sft.batch), "gold.optimizer": (e.gold.optimizer, e.gold.batch),
        "proxies.optimizer": (e.proxies.optimizer, e.proxies.batch),
        "ppo.policy_optimizer": (e.ppo.policy_optimizer, small),
        "ppo.critic_optimizer": (e.ppo.critic_optimizer, small),
    }  # fmt: skip
    for where, (optimizer, batch) in batches.items():
        need(
            batch % optimizer.accumulate == 0,
            f"{where}.accumulate is {optimizer.accumulate}: it must divide the batch of {batch}",
        )
    need(0 < e.ppo.lam <= 1, f"ppo.lam is {e.ppo.lam}: it must lie in (0, 1]")
    need(0 < e.fits.level < 1, f"fits.level is {e.fits.level}: it must lie in (0, 1)")
