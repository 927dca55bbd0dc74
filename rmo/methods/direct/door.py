"""Direct alignment: a policy learns from comparisons without an RM, gold read along the way (Rafailov et al. 2024)."""

from collections.abc import Iterator, Sequence

import numpy as np

from rmo.analysis.curve_id import Settings
from rmo.config import Experiment, Recipe
from rmo.config.names import comparisons_name, sweep_named
from rmo.methods.bench import Arm, Bench, Record, RewardRow
from rmo.methods.direct.settings import Direct
from rmo.methods.method import Diagnostic, Job, Method, Need, register
from rmo.methods.wording import Wording

NAMES = ("dpo", "ipo", "slic")  # of `losses.LOSSES`, whose module is heavy to import


def settings_of(e: Experiment) -> list[Direct]:
    """Entries of `Experiment.methods` that are this method's."""
    return [settings for settings in e.methods if isinstance(settings, Direct)]


def jobs(e: Experiment) -> Iterator[Job]:
    """One stage for every entry, which learns from one sweep's comparisons."""
    for settings in settings_of(e):
        name = comparisons_name(sweep_named(e, settings.sweep))
        yield Job(name, name, settings)


def check(e: Experiment, need: Need) -> None:
    """The settings, and which comparisons they name."""
    for i, settings in enumerate(e.methods):
        if isinstance(settings, Direct):
            check_one(e, settings, f"methods.{i}", need)
    sweeps = [settings.sweep for settings in settings_of(e)]
    need(
        len(set(sweeps)) == len(sweeps), "methods holds two entries Direct of one sweep: give one more losses and betas"
    )

    labels = [(r.comparisons, r.prompts, r.flip) for c in settings_of(e) for r in learned_from(e, c)]
    again = "methods holds two entries Direct that learn from as many comparisons, alike: their curves would be one"
    need(len(set(labels)) == len(labels), again)


def learned_from(e: Experiment, c: Direct) -> list[Recipe]:
    """The recipes that an entry names, as far as they are there."""
    recipes = [r for sweep in e.proxies.sweeps if sweep.name == c.sweep for r in sweep.recipes]
    return [recipes[r] for r in c.recipes if 0 <= r < len(recipes)]


def check_one(e: Experiment, c: Direct, where: str, need: Need) -> None:
    """One entry."""
    known = {sweep.name: sweep for sweep in e.proxies.sweeps}
    need(c.sweep in known, f"{where}.sweep is {c.sweep!r}: proxies.sweeps has {', '.join(known)}")
    recipes, last = known[c.sweep].recipes, len(known[c.sweep].recipes) - 1
    need(bool(c.recipes), f"{where}.recipes is empty: there is nothing to learn from")
    within = all(0 <= r <= last for r in c.recipes)
    need(within, f"{where}.recipes is {c.recipes}: the recipes of sweep {c.sweep} are 0 to {last}")
    drawn = not any(recipes[r].choice or recipes[r].confounded for r in c.recipes)
    need(drawn, f"{where}.recipes names one whose comparisons are chosen: take one with neither choice nor confounded")
    same = {(recipes[r].comparisons, recipes[r].prompts, recipes[r].flip) for r in c.recipes}
    need(
        len(same) == len(c.recipes),
        f"{where}.recipes names two that differ only in how an RM is trained: without an RM they are one",
    )
    unknown = [name for name in c.losses if name not in NAMES]
    need(bool(c.losses) and not unknown, f"{where}.losses is {c.losses}: use some of {', '.join(NAMES)}")
    need(len(set(c.losses)) == len(c.losses), f"{where}.losses holds one loss twice")
    positive = bool(c.betas) and all(np.isfinite(beta) and beta > 0 for beta in c.betas)
    need(positive, f"{where}.betas is {c.betas}: each must be above 0, for at 0 no comparison moves the policy")
    need(len(set(c.betas)) == len(c.betas), f"{where}.betas holds one beta twice")
    need(
        0 <= c.seeds <= e.proxies.seeds,
        f"{where}.seeds is {c.seeds}: it must be at most proxies.seeds ({e.proxies.seeds}), whose labels they have",
    )
    for name in ("epochs", "batch", "kl_max", "d_step", "patience", "look", "look_draws"):
        value = getattr(c, name)
        need(value > 0, f"{where}.{name} is {value}: it must be positive")
    need(
        c.read_draws > 1, f"{where}.read_draws is {c.read_draws}: pairs of samples are judged, so it must be at least 2"
    )
    fewest = min(recipes[r].comparisons for r in c.recipes)
    need(c.batch <= fewest, f"{where}.batch is {c.batch}: there are {fewest} comparisons")
    parts = c.optimizer.accumulate
    need(c.batch % parts == 0, f"{where}.optimizer.accumulate is {parts}: it must divide {where}.batch {c.batch}")


def arms(rewards: Sequence[RewardRow], c: Direct) -> list[Arm]:
    """Recipes x losses x betas x seeds."""
    out = []
    for recipe in c.recipes:
        mine = [(i, row) for i, row in enumerate(rewards) if row.recipe_index == recipe]
        places = [i for i, row in mine if not c.seeds or (row.seed or 0) < c.seeds]
        for loss in c.losses:
            out += [Arm(i, Settings(loss=loss, beta=beta)) for beta in c.betas for i in places]
    return out


def run(bench: Bench, job: Job) -> Record:
    """Train every member on its comparisons, all in one program."""
    from rmo.methods.direct.setup import align

    assert isinstance(job.settings, Direct)
    members = arms(bench.rewards, job.settings)
    bench.begin(members)
    return record_of(members, align(bench, job.settings, members))


def record_of(members: Sequence[Arm], history: dict) -> Record:
    """The record of a history, in which arrays are [K, M, ...]. There is no proxy: its scores are not known. What the
    policy's log-ratio says of a response is in units of its own, and stands among the diagnostics."""

    def by_member(x: np.ndarray) -> np.ndarray:
        return np.moveaxis(x, 0, 1)

    read, last, step = history["read"], history["last"], history["step"]
    fresh = np.concatenate([np.ones((1, len(members)), bool), np.diff(step, axis=0) > 0])
    found = {name: x.mean(-1) if x.ndim == 3 else x for name, x in read.items() if name not in ("tokens", "mask")}
    found |= {f"train_{name}": x for name, x in last.items()}
    return Record(
        arms=members,
        step_or_n=by_member(step),
        kl=by_member(read["kl"].mean(-1, dtype=np.float64)),
        proxy=by_member(np.full_like(read["gold"], np.nan)),
        gold=by_member(read["gold"]),
        real=by_member(fresh),
        judged={"accuracy": by_member(read["accuracy"])},
        diagnostics={d.name: by_member(found[d.name]) for d in METHOD.diagnostics},
        annotator=by_member(read["annotator"]) if "annotator" in read else None,
        wording=Wording(*(by_member(read[name]) for name in Wording._fields)) if "rates" in read else None,
        tokens=by_member(read["tokens"]),
        mask=by_member(read["mask"]),
    )


METHOD = register(
    Method(
        name="direct",
        title="direct alignment (DPO, IPO, SLiC)",
        short="direct",
        axis="update",
        kl="exact",
        kl_axis="KL distance between aligned policy and initial policy, nats (square-root scale)",
        form="d(a - b log d)",
        jobs=jobs,
        run=run,
        check=check,
        logs_points=True,
        diagnostics=(
            Diagnostic("implicit", "implicit reward of own samples: beta times the log-ratio"),
            Diagnostic("accuracy", "implicit reward's accuracy on pairs of own samples, by gold"),
            Diagnostic("held_accuracy", "implicit reward's accuracy on held-out comparisons, by gold", drawn=True),
            Diagnostic("held_margin", "implicit reward's margin on held-out comparisons"),
            Diagnostic("held_preferred", "log-ratio of what gold prefers, held-out comparisons, nats", drawn=True),
            Diagnostic("train_loss", "loss of the last batch"),
            Diagnostic("train_accuracy", "implicit reward's accuracy on the last batch", drawn=True),
            Diagnostic("train_margin", "implicit reward's margin on the last batch"),
            Diagnostic("kl_k1", "KL by k1, nats"),
            Diagnostic("kl_k3", "KL by k3, nats"),
            Diagnostic("entropy", "entropy per token, nats"),
            Diagnostic("length", "response length, tokens", drawn=True),
            Diagnostic("unfinished", "share of responses that ran out of room"),
            Diagnostic("gold_cut", "share of texts too long for gold"),
        ),
        charts=(
            ("kl", "KL from the initial policy, held-out prompts"),
            ("gold", "Gold"),
            ("held_accuracy", "Implicit reward's accuracy on held-out comparisons"),
            ("entropy", "Entropy per token"),
            ("length", "Response length"),
            ("last_loss", "Loss"),
            ("last_margin", "Margin of implicit rewards"),
            ("last_accuracy", "Accuracy of implicit rewards"),
        ),
        less_memory="set or lower chunk of Direct, raise its optimizer.accumulate, lower its read_draws or batch, "
        "fewer losses and betas; policy.remat full, policy.dtype bfloat16",
        rank=3,
    )
)
