"""Loading a config file, and refusing what cannot work in one line, before any work starts."""

import dataclasses
import importlib.util
import math
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from rmo import config
from rmo.config.names import sizes_of, sweep_named
from rmo.config.replicates import check_worlds
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
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a config file is Python: it may end the process, too
        raise config.ConfigError(errors.in_file(path, error, vars(config))) from error
    if not isinstance(experiment, config.Experiment):
        found = f"experiment() returned {type(experiment).__name__}" if experiment is not None else "no experiment()"
        raise config.ConfigError(f"{path}: {found}; a config file defines experiment() -> Experiment")
    try:
        check(experiment)
    except config.ConfigError:
        raise
    except Exception as error:
        if errors.raised_in(path, error):  # by a class of the file's own
            raise config.ConfigError(errors.in_file(path, error, vars(config))) from error
        raise
    return experiment


def check(experiment: config.Experiment) -> None:
    """Refuse what cannot work.

    Raises:
      config.ConfigError: one line that names the field, its value and the remedy.
    """
    # The checks of worlds, kinds of gold and methods stand beside them, in rooms above this one.
    from rmo.experiment.gold import check as check_gold
    from rmo.methods import method as methods
    from rmo.worlds.world import check as check_world

    e = experiment
    types(e, "")
    numbers(e, "", MAY_BE_ZERO | {f"world.{name}" for name in e.world.may_be_zero})
    directory_name(e.name, "name")
    check_worlds(e)
    models(e)
    trunks(e.proxies)
    comparisons(e)
    distinct_names(e.proxies.sweeps, "proxies.sweeps")
    for w, sweep in enumerate(e.proxies.sweeps):
        sweep_of_proxies(e, sweep, f"proxies.sweeps.{w}")
    need(bool(e.proxies.sweeps) and e.proxies.sweeps[0].best_of_n, "proxies.sweeps: the first is best-of-n's main one")
    ensembles(e)
    other_policies(e)
    every = range(len(e.proxies.sizes))
    have = [(i, e.proxies.named(r)) for w in e.proxies.sweeps for i in w.sizes or every for r in w.recipes]
    need(len(set(have)) == len(have), "proxies.sweeps trains one size with one recipe twice: for repeats use seeds")
    check_world(e, need)
    check_gold(e, need)
    if e.sft.texts:
        need(e.sft.texts >= e.sft.batch, f"sft.texts is {e.sft.texts}: it must be at least one batch ({e.sft.batch})")
    else:
        need(all(s.checkpoint for s in e.policies), "sft.texts is 0: a policy without a checkpoint must be trained")
    for method in methods.every():
        method.check(e, need)
    accumulation("sft.optimizer", e.sft.optimizer, e.sft.batch)
    accumulation("gold.optimizer", e.gold.optimizer, e.gold.batch)
    accumulation("proxies.optimizer", e.proxies.optimizer, e.proxies.batch)
    need(0 < e.fits.level < 1, f"fits.level is {e.fits.level}: it must lie in (0, 1)")


def need(ok: bool, message: str) -> None:
    """Raises ConfigError unless something is as it must be."""
    if not ok:
        raise config.ConfigError(message)


MAY_BE_ZERO = {
    "seed", "sft.texts", "comparisons.flip", "proxies.steps", "ppo.chunk", "gold_as_proxy.ppo_seeds", "fits.min_d",
}  # fmt: skip
MAY_BE_ZERO_ANYWHERE = {
    "kv_heads", "head", "hidden", "query_scale", "attention_cap", "logit_cap", "window", "warmup", "weight_decay",
    "vocab", "length", "d_per_step",
}  # fmt: skip


# What values of a field's type are. An int is a float too, a bool is neither.
KINDS = {int: Integral, float: Real, str: str, bool: bool}


def types(owner: Any, path: str) -> None:
    """Every field holds a value of its type: a config file is Python, and may hold anything."""
    try:
        hints = get_type_hints(type(owner))
    except NameError:  # a class of somebody's file, whose types are written for type checkers only
        return
    for item in dataclasses.fields(owner):
        need(hasattr(owner, item.name), f"{path}{item.name} is missing: a config's parts have all their fields")
        of_type(getattr(owner, item.name), hints[item.name], f"{path}{item.name}")


def of_type(value: Any, hint: Any, where: str) -> None:
    """One value is of its field's type; unions and the like are not looked into."""
    shown = f"{where} is {errors.shown(value)}: it must be"
    if get_origin(hint) is Literal:
        need(type(value) in map(type, get_args(hint)) and value in get_args(hint), f"{shown} {errors.kind(hint)}")
    elif hint in KINDS:
        fits = isinstance(value, KINDS[hint]) and (hint is bool or not isinstance(value, bool))
        need(fits, f"{shown} {errors.kind(hint)}")
        plain = type(value).__module__ != "numpy" or isinstance(value, float)  # float64 is a float
        need(plain, f"{shown} a number of Python's, as {hint.__name__}(...) makes it")
        sound = not isinstance(value, str) or encodable(value)
        need(sound, f"{shown} a text that UTF-8 can write, without lone surrogates")
    elif get_origin(hint) is tuple:
        need(isinstance(value, tuple), f"{shown} a tuple, as (a,) or (a, b)")
        for index, entry in enumerate(value):
            of_type(entry, get_args(hint)[0], f"{where}.{index}")
    elif dataclasses.is_dataclass(hint):
        fits = isinstance(value, cast(type, hint)) and not isinstance(value, type)
        need(fits, f"{shown} {errors.kind(hint)}")
        types(value, f"{where}.")


def encodable(text: str) -> bool:
    """Whether a text can be written to a file: the report would fail on it at the end of the run."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def numbers(owner: Any, path: str, may_be_zero: set[str]) -> None:
    """Every number of a config is finite, and positive but for those that may be zero."""
    for item in dataclasses.fields(owner):
        value, where = getattr(owner, item.name), f"{path}{item.name}"
        if dataclasses.is_dataclass(value):
            numbers(value, where + ".", may_be_zero)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            need(
                not isinstance(value, int) or abs(value) < 2**63,
                f"{where} is {errors.shown(value)}: it must be below 2^63",
            )
            need(math.isfinite(value), f"{where} is {value}: it must be finite")
            if (
                where in may_be_zero
                or item.name in MAY_BE_ZERO_ANYWHERE
                or isinstance(owner, config.Recipe | config.Combined | config.Ensemble | config.MethodSettings)
            ):
                need(value >= 0, f"{where} is {value}: it must be at least 0")
            else:
                need(value > 0, f"{where} is {value}: it must be positive")
        elif isinstance(value, tuple):
            for index, entry in enumerate(value):
                if dataclasses.is_dataclass(entry):
                    numbers(entry, f"{where}.{index}.", may_be_zero)


def model(shape: config.Model, where: str) -> None:
    """A shape that a transformer can have."""
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
    """Indices that are places of a tuple."""
    for index in given:
        need(0 <= index < len(owners), f"{where} has {index}: {what} holds indices 0 to {len(owners) - 1}")


def distinct_names(
    parts: Sequence[config.Sweep | config.Against | config.Combined | config.Ensemble], where: str
) -> None:
    """Names that directories can have, each once."""
    names = [part.name for part in parts]
    need(len(set(names)) == len(names), f"{where} has two entries of one name: {', '.join(names)}")
    for name in names:
        directory_name(name, f"{where}: name")


def directory_name(name: str, where: str, most: int = 100) -> None:
    """A name that a directory can have, or a part of one, of `most` bytes: it never leads elsewhere.

    Raises:
      config.ConfigError: it is none.
    """
    head = f"{where} is {errors.shown(name)}: it names a directory, so"
    need(bool(name) and "/" not in name, f"{head} no slashes and not empty")
    need(name.strip() not in ("", ".", ".."), f"{head} a name of its own")
    need(name.isprintable(), f"{head} no characters that cannot be printed")
    need(len(name.encode()) <= most, f"{head} at most {most} bytes")


def accumulation(where: str, optimizer: config.Optimizer, batch: int) -> None:
    """Parts of a batch are equal."""
    parts = optimizer.accumulate
    need(batch % parts == 0, f"{where}.accumulate is {parts}: it must divide the batch of {batch}")


def models(e: config.Experiment) -> None:
    """Shapes of policy, gold and proxies."""
    model(e.policy, "policy")
    model(e.gold.model, "gold.model")
    for index, size in enumerate(e.proxies.sizes):
        model(size, f"proxies.sizes.{index}")
    for where, shape in (("policy", e.policy), *((f"other_policies.{i}", s) for i, s in enumerate(e.policies[1:]))):
        need(shape.pooling == "last", f"{where}.pooling is {shape.pooling!r}: only an RM has a score")
    need(
        e.gold.kind != "checkpoint" or e.gold.model.pooling == "last",
        f"gold.model.pooling is {e.gold.model.pooling!r}: the head of a checkpoint is for the last token",
    )
    need(bool(e.proxies.sizes), "proxies.sizes is empty: at least one proxy is needed")
    counts = {s.weights for s in e.proxies.sizes}
    need(
        len(counts) == len(e.proxies.sizes),
        "proxies.sizes holds two shapes with one parameter count: curves are told apart by it; for repeats use seeds",
    )


def trunks(p: config.Proxies) -> None:
    """What the sizes' language models are trained on."""
    if p.start == "random":
        return
    c = p.trunk
    need(
        any(map(p.from_language_model, p.sizes)),
        f"proxies.start is {p.start!r}, but every size starts from its checkpoint: leave it at 'random'",
    )
    need(c.texts >= c.batch, f"proxies.trunk.texts is {c.texts}: it must be at least one batch ({c.batch})")
    accumulation("proxies.trunk.optimizer", c.optimizer, c.batch)


def held_out_prompts(e: config.Experiment) -> int:
    """Of the comparisons' prompts, those for validation."""
    return round(e.comparisons.prompts * e.comparisons.held_out)


def comparisons(e: config.Experiment) -> None:
    """The split, and noise of labels."""
    need(
        0 < held_out_prompts(e) < e.comparisons.prompts,
        f"comparisons.held_out is {e.comparisons.held_out}: it must leave prompts on both sides",
    )
    need(0 <= e.comparisons.flip < 0.5, f"comparisons.flip is {e.comparisons.flip}: it must lie in [0, 0.5)")


def sweep_of_proxies(e: config.Experiment, sweep: config.Sweep, where: str) -> None:
    """Sizes, recipes and combined rewards of one sweep."""
    indices(sweep.sizes, e.proxies.sizes, f"{where}.sizes", "proxies.sizes")
    need(bool(sweep.recipes), f"{where}.recipes is empty: a proxy needs comparisons to learn from")
    need(len(set(sweep.recipes)) == len(sweep.recipes), f"{where}.recipes holds one recipe twice")
    for r, recipe in enumerate(sweep.recipes):
        recipe_of_proxies(e, recipe, f"{where}.recipes.{r}")
        active_choice(e, sweep, recipe, f"{where}.recipes.{r}")
        confounded(e, recipe, f"{where}.recipes.{r}")
    distinct_names(sweep.combined, f"{where}.combined")
    for c in sweep.combined:
        indices((c.recipe,), sweep.recipes, f"{where}.combined.recipe", f"the recipes of sweep {sweep.name}")
        several_seeds(e, c, f"{where}.combined {c.name}")


def ensembles(e: config.Experiment) -> None:
    """Ensembles over RM sizes are of two sizes or more, which one sweep has."""
    distinct_names(e.ensembles, "ensembles")
    sweeps = {sweep.name: sweep for sweep in e.proxies.sweeps if sweep.best_of_n}
    for i, c in enumerate(e.ensembles):
        where = f"ensembles.{i}"
        there = f"proxies.sweeps with best-of-n has {', '.join(sweeps)}"
        need(c.sweep in sweeps, f"{where}.sweep is {c.sweep!r}: {there}")
        sweep = sweeps[c.sweep]
        indices((c.recipe,), sweep.recipes, f"{where}.recipe", f"the recipes of sweep {sweep.name}")
        have = sweep.sizes or tuple(range(len(e.proxies.sizes)))
        need(set(c.sizes) <= set(have), f"{where}.sizes is {c.sizes}: sweep {sweep.name} has sizes {have}")
        need(len(set(c.sizes)) == len(c.sizes), f"{where}.sizes {c.sizes} names a size twice")
        one = f"{where} is of one RM size: give it two or more, or combine the seeds of one in Sweep.combined"
        need(len(c.sizes or have) > 1, one)
        seeds_of(e, c, where)


def seeds_of(e: config.Experiment, c: config.Combined | config.Ensemble, where: str) -> None:
    """Seeds that there are, each once."""
    indices(c.seeds, tuple(range(e.proxies.seeds)), f"{where}: seeds", "proxies.seeds")
    need(len(set(c.seeds)) == len(c.seeds), f"{where}: seeds {c.seeds} names a seed twice")


def several_seeds(e: config.Experiment, c: config.Combined, where: str) -> None:
    """RMs that are combined are at least two, and different ones."""
    seeds_of(e, c, where)
    many = len(c.seeds) or e.proxies.seeds
    need(many > 1, f"{where} is an ensemble of one: give it two seeds or more, or raise proxies.seeds")


def recipe_of_proxies(e: config.Experiment, recipe: config.Recipe, where: str) -> None:
    """What one kind of proxy is trained on, and how."""
    train_prompts = e.comparisons.prompts - held_out_prompts(e)
    available = train_prompts * e.comparisons.pairs
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
        not e.proxies.stops_early(recipe) or recipe.comparisons + STOPPING <= available,
        f"{where}: stop_early needs {STOPPING} training comparisons beside the {recipe.comparisons} it uses",
    )


def active_choice(e: config.Experiment, sweep: config.Sweep, recipe: config.Recipe, where: str) -> None:
    """Somebody chooses: the same recipe on half as many comparisons, in a sweep that is trained before."""
    if not recipe.choice:
        return
    need(not recipe.prompts, f"{where} has choice and prompts: both say which comparisons it is trained on; use one")
    names = [w.name for w in e.proxies.sweeps]
    need(
        sweep.first in names[: names.index(sweep.name)],
        f"{where}.choice needs RMs that choose: {where.split('.recipes')[0]}.first is {sweep.first!r}; it must name a "
        "sweep before this one",
    )
    half, first = recipe.first_half, sweep_named(e, sweep.first)
    need(
        half in first.recipes and set(sizes_of(e, sweep)) <= set(sizes_of(e, first)),
        f"{where}.choice: sweep {first.name} must train every size of this one with the same recipe on half as many "
        f"comparisons ({half.comparisons})",
    )


def confounded(e: config.Experiment, recipe: config.Recipe, where: str) -> None:
    """A share above one half, of comparisons that there are enough of: about half of all agree with the mark."""
    share = recipe.confounded
    if not share:
        return
    need(0.5 < share <= 1, f"{where}.confounded is {share:g}: it must lie above 0.5, which is chance, and not above 1")
    other = "choice" if recipe.choice else "prompts"
    alone = not (recipe.choice or recipe.prompts)
    need(alone, f"{where} has confounded and {other}: both say which comparisons it is trained on; use one")
    need(not recipe.flip, f"{where} has confounded and flip: what a mark does is seen on clean labels alone; use one")
    labels = e.comparisons.labels
    clean = (
        f"{where} has confounded, and comparisons.labels is {labels!r}: what a mark does is seen on clean labels alone"
    )
    need(labels == "hard", f'{clean}; take "hard"')
    need(
        e.comparisons.labelled_by == "gold",
        f"{where} has confounded, and comparisons.labelled_by is {e.comparisons.labelled_by!r}: the mark is one that "
        'goes least with gold, whose labels it needs; take "gold"',
    )
    available = (e.comparisons.prompts - held_out_prompts(e)) * e.comparisons.pairs
    agreeing = (available - STOPPING * e.proxies.stops_early(recipe)) // 2
    wanted = round(share * recipe.comparisons)
    need(
        wanted <= 0.9 * agreeing,
        f"{where}.confounded takes {wanted} comparisons whose preferred response shows more of the mark: about "
        f"{agreeing} do; take fewer comparisons, at most {int(0.9 * agreeing / share)}, or raise comparisons.prompts",
    )


def other_policies(e: config.Experiment) -> None:
    """Shapes that curves can be told apart by."""
    for i, other in enumerate(e.other_policies):
        model(other.model, f"other_policies.{i}.model")
        indices(other.sizes, e.proxies.sizes, f"other_policies.{i}.sizes", "proxies.sizes")
    shapes = [s.weights for s in e.policies]
    need(
        len(set(shapes)) == len(shapes),
        "other_policies holds a shape with another policy's parameter count: curves are told apart by it",
    )
