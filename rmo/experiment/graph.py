"""Which stage instances an experiment has, in what order, and how they depend on one another.

(prompts ->) sft -> gold -> samples -> comparisons (-> trunks) -> proxies -> scores -> every method -> fits -> report. A
stage's directory carries a digest of the slice of the config it depends on and of its upstream digests, so a changed
hyper-parameter never meets stale results.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax

from rmo import config
from rmo.artifacts.run_files import BEFORE_METHODS, GATHERERS
from rmo.config.checks import directory_name
from rmo.config.names import (
    GOLD_SCORES,
    GOLD_TRUNK,
    comparisons_name,
    ensemble_name,
    of_policy,
    proxies_name,
    scored,
    scores_name,
    sizes_of,
    sizes_of_ensemble,
    sweep_named,
    trunk_name,
)
from rmo.experiment.bench import RunBench
from rmo.experiment.ensembles import EnsembleScored
from rmo.experiment.gold import gold
from rmo.experiment.labelled import Labelled, slice_of_labels
from rmo.experiment.pool import GoldScored, Rewarding, Scored
from rmo.experiment.run import Run, StageOf
from rmo.experiment.stages.comparisons import comparisons
from rmo.experiment.stages.fits import fits
from rmo.experiment.stages.initial_policy import initial_policy
from rmo.experiment.stages.optimised import optimised
from rmo.experiment.stages.prompts import prompts
from rmo.experiment.stages.proxies import proxies
from rmo.experiment.stages.report import report
from rmo.experiment.stages.samples import samples
from rmo.experiment.stages.scores import ensemble_scores, gold_scores, label_scores, scores
from rmo.experiment.stages.trunks import trunks
from rmo.methods import method as methods
from rmo.rewards import combination
from rmo.runtime import errors
from rmo.runtime.files import RunError
from rmo.worlds.world import world_of

Make = Callable[[Run, Path], None]
Source = Callable[[Run], Rewarding]  # of the rewards that a method optimises against


def kinds() -> list[str]:
    """Kinds of stages, in order."""
    return [*BEFORE_METHODS, *methods.names(), *GATHERERS]


def open_run(experiment: config.Experiment, root: Path, mesh: jax.sharding.Mesh | None = None) -> Run:
    """The run of an experiment in directory `root`; nothing is touched. Without a mesh it can be looked at, not run."""
    return Run(experiment, root, plan(experiment), mesh)  # type: ignore[arg-type]


def plan(e: config.Experiment) -> dict[str, StageOf]:
    """Every stage instance of an experiment, in an order that respects what needs what."""
    out: dict[str, StageOf] = {}

    def add(name: str, make: Make, depends: tuple, *upstream: str) -> None:
        if name in out:
            raise config.ConfigError(
                f"two stages would be called {name}: give policies other widths or depths, sweeps other names"
            )
        for part in name.split("/"):  # of methods' own settings, too
            directory_name(part, f"a part of stage {errors.shown(name)}", 200)
        out[name] = StageOf(name, make, depends, tuple(out[u] for u in upstream))

    base = (e.seed, e.world)
    real = ("prompts",) if world_of(e.world).reads_sources else ()
    if real:
        add("prompts", prompts, (e.seed, e.world, e.policy.checkpoint, e.policy.vocab, e.gold.comparisons))
    for policy, shape in enumerate(e.policies):
        add(of_policy("sft", policy, e), partial(initial_policy, policy=policy), (*base, shape, e.sft), *real)

    def add_trunk(name: str, shape: config.Model, c: config.SFT) -> None:
        make = partial(trunks, shape=shape, c=c, name=name)
        add(f"trunks/{name}", make, (*base, shape.trunk, c), *real)

    pretrained = e.gold.start == "language_model"
    if pretrained:
        add_trunk(GOLD_TRUNK, e.gold.model, e.gold.trunk)
    of_gold = dataclasses.replace(e.gold, trunk=config.Gold().trunk)  # which is the trunk's own stage
    add("gold", gold, (*base, of_gold), *real, "sft", *([f"trunks/{GOLD_TRUNK}"] if pretrained else []))
    for policy in range(len(e.policies)):
        pool = (*base, e.bon.prompts, e.bon.draws)
        add(of_policy("samples", policy, e), partial(samples, policy=policy), pool, of_policy("sft", policy, e), "gold")
    add("comparisons", comparisons, (*base, e.comparisons), "sft", "gold", "samples")
    for size in dict.fromkeys(size for sweep in e.proxies.sweeps for size in sizes_of(e, sweep)):
        if name := trunk_name(e, size):
            add_trunk(name, e.proxies.sizes[size], e.proxies.trunk)
    for sweep in e.proxies.sweeps:
        for size in sizes_of(e, sweep):
            shape, name = e.proxies.sizes[size], proxies_name(e, size, sweep)
            trunk = f"trunks/{trunk_name(e, size)}" if trunk_name(e, size) else ""
            first = f"proxies/{proxies_name(e, size, sweep_named(e, sweep.first))}" if sweep.first else ""
            make = partial(proxies, shape=shape, sweep=sweep, name=name, trunk=trunk, first=first)
            before = ["comparisons", *filter(None, (trunk, first))]
            add(f"proxies/{name}", make, (e.seed, *slice_of_proxies(e, shape, sweep)), *before)
    known_combinations(e)
    for size, sweep, policy in scored(e):
        before = [of_policy("samples", policy, e), "samples", f"proxies/{proxies_name(e, size, sweep)}"]
        before += [f"scores/{scores_name(e, size, sweep)}"] if policy else []
        combined = () if policy else sweep.combined
        name = f"scores/{scores_name(e, size, sweep, policy)}"
        add(name, partial(make_scores, size=size, sweep=sweep, policy=policy), (combined,), *before)
    of_stage: dict[str, Source] = {scores_name(e, *which): source_of(*which) for which in scored(e)}
    for c in e.ensembles:
        before = [f"scores/{scores_name(e, i, sweep_named(e, c.sweep))}" for i in sizes_of_ensemble(e, c)]
        make = partial(make_ensemble_scores, which=c)
        add(f"scores/{ensemble_name(c)}", make, (dataclasses.replace(c, sizes=()),), "samples", *before)
        of_stage[ensemble_name(c)] = source_of_ensemble(c)
    if e.gold_as_proxy.optimised:
        add(f"scores/{GOLD_SCORES}", make_gold_scores, (), "samples")
        of_stage[GOLD_SCORES] = GoldScored
    jobs = [(method, job) for method in methods.every() for job in method.jobs(e)]
    for sweep in e.proxies.sweeps:
        name = comparisons_name(sweep)
        if any(job.scores == name for _, job in jobs):
            make, labels = partial(make_label_scores, sweep=sweep), slice_of_labels(e.proxies, sweep)
            add(f"scores/{name}", make, labels, "samples", "comparisons")
            of_stage[name] = partial(Labelled, sweep=sweep)
    for method, job in jobs:
        if job.scores not in of_stage:
            there = ", ".join(of_stage)
            raise config.ConfigError(f"{method} optimises against scores/{job.scores}: there are {there}")
        if absent := [name for name in job.after if name not in out]:
            raise config.ConfigError(f"{method}/{job.name} needs {', '.join(absent)}: no stage before it is called so")
        make = partial(make_optimised, method=method, job=job, source=of_stage[job.scores])
        add(f"{method.name}/{job.name}", make, (job.settings,), f"scores/{job.scores}", *job.after)
    measured = [name for name in out if name.split("/")[0] in ("proxies", "scores", *methods.names())]
    add("fits", fits, (e.fits,), *measured)
    # The page shows the note and the whole config.
    add("report", report, (dataclasses.replace(e, name="", tags=(), worlds=()),), *out)
    return out


def known_combinations(e: config.Experiment) -> None:
    """Raises ConfigError where a sweep combines RMs in a way that nobody registered, or with a coefficient that it
    cannot take."""
    for sweep in e.proxies.sweeps:
        for c in sweep.combined:
            try:
                combination.check(c.how, c.coefficient)
            except ValueError as error:
                raise config.ConfigError(f"sweep {sweep.name}, combined {c.name}: {error}") from error
    for c in e.ensembles:
        try:
            found = combination.check(c.how, c.coefficient)
        except ValueError as error:
            raise config.ConfigError(f"ensemble {c.name}: {error}") from error
        if found.scores is None:
            unlike = "averages parameters, which RMs of different sizes do not share: combine their scores"
            raise config.ConfigError(f"ensemble {c.name}: {c.how} {unlike}, as mean does")


def slice_of_proxies(e: config.Experiment, shape: config.Model, sweep: config.Sweep) -> tuple:
    """What a `proxies` stage depends on, but for its trunk, which is a stage of its own."""
    alone = dataclasses.replace(sweep, sizes=(), best_of_n=True, combined=())
    p = dataclasses.replace(e.proxies, sizes=(shape,), sweeps=(alone,), start="random", trunk=config.Proxies().trunk)
    # Parts of a batch share one mask of dropout, so that with dropout their number is more than rounding.
    parts = e.proxies.optimizer.accumulate if any(recipe.dropout for recipe in sweep.recipes) else 1
    return p, parts


def make_scores(run: Run, out: Path, size: int, sweep: config.Sweep, policy: int) -> None:
    scores(Scored(run, size, sweep, policy), out)


def make_ensemble_scores(run: Run, out: Path, which: config.Ensemble) -> None:
    ensemble_scores(EnsembleScored(run, which), out)


def make_gold_scores(run: Run, out: Path) -> None:
    gold_scores(GoldScored(run), out)


def make_label_scores(run: Run, out: Path, sweep: config.Sweep) -> None:
    label_scores(Labelled(run, sweep), out)


def source_of(size: int, sweep: config.Sweep, policy: int) -> Source:
    """How to come by the rewards of one `scores` stage of a sweep."""

    def source(run: Run) -> Rewarding:
        return Scored(run, size, sweep, policy)

    return source


def source_of_ensemble(which: config.Ensemble) -> Source:
    """How to come by the reward of an ensemble over RM sizes."""

    def source(run: Run) -> Rewarding:
        return EnsembleScored(run, which)

    return source


def make_optimised(run: Run, out: Path, method: methods.Method, job: methods.Job, source: Source) -> None:
    optimised(RunBench(run, method, job, source(run), out))


def matching(run: Run, only: tuple[str, ...]) -> list[str]:
    """Names of the stages that `--only` picks; all without it. `sft` is sft and sft/..., `=sft` that one alone.

    Raises:
      RunError: a name that picks nothing.
    """

    def picks(want: str, name: str) -> bool:
        return name == want.removeprefix("=") or (name + "=").startswith(want + "/")

    for want in only:
        if not any(picks(want, name) for name in run.stages):
            there = list(dict.fromkeys(name.split("/")[0] for name in run.stages))
            near = errors.nearest(want.removeprefix("="), [*there, *run.stages])
            known = f"there are {', '.join(there)}, and instances as `rmo list` names them"
            raise RunError(f"--only {want}: no such stage{near}; {known}")
    return [name for name in run.stages if not only or any(picks(want, name) for want in only)]


def groups(run: Run) -> list[tuple[str, list[str], list[str]]]:
    """Stage instances that are not done, in groups: (name, groups it waits for, instances).

    Those of one group are of one kind and need nothing of one another, so that they can run side by side, on machines
    of their own.
    """
    group_of: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    needs: dict[str, dict[str, None]] = {}
    for name, stage in run.stages.items():
        if run.done(name):
            continue
        before = [group_of[s.name] for s in stage.upstream if s.name in group_of]
        kind = name.split("/")[0]
        level = sum(1 for g in dict.fromkeys(before) if g.split(".")[0] == kind)  # e.g. a second policy's scores
        group = group_of[name] = f"{kind}.{level + 1}" if level else kind
        members.setdefault(group, []).append(name)
        needs.setdefault(group, {}).update(dict.fromkeys(before))
    return [(group, list(needs[group]), names) for group, names in members.items()]
