"""What every curve of a run cost: labels, and seconds of its stages from their cost.json; what is not known is None."""

import re
from dataclasses import dataclass

from rmo.analysis.curve_id import CurveId
from rmo.artifacts.run_files import RunFiles
from rmo.artifacts.stages import Optimised, Proxies, Scores, Stage
from rmo.methods.method import find

MEMBERS = re.compile(r" of (\d+)")  # in `rm_combined`: how many RMs make one reward


@dataclass(frozen=True)
class Spent:
    """Device-seconds of one curve, compiling left out, by what they went into; None where cost.json does not say."""

    optimising: float | None  # its share of the method's stage, gold's reads included
    training_rms: float | None  # its RMs
    pool: float | None  # draws of the initial policy and their scores, for methods that choose among them

    @property
    def seconds(self) -> float | None:
        parts = (self.optimising, self.training_rms, self.pool)
        return None if None in parts else sum(part or 0.0 for part in parts)


def members(id: CurveId) -> int:
    """How many RMs are behind a reward."""
    found = MEMBERS.search(id.rm_combined)
    return int(found[1]) if found else 1


def labels(id: CurveId) -> int | None:
    """Labels that it took, at most: RMs of several seeds may share some. None where not known."""
    one = find(id.method).labels(id)
    return None if one is None else one * members(id)


def work(stage: Stage) -> float | None:
    """Device-seconds of a stage without compiling; None where it does not say."""
    if stage.made_by() is None:
        return None
    cost = stage.cost()
    return max(cost["seconds"] - cost.get("compile_seconds", 0.0), 0.0) * cost.get("devices", 1)


def share(stage: Stage | None, parts: int, mine: int) -> float | None:
    """That part of a stage's work."""
    whole = None if stage is None else work(stage)
    return None if whole is None else whole * mine / max(parts, 1)


def spent(run: RunFiles) -> dict[CurveId, Spent]:
    """Of every curve of a run whose stages are there."""
    out = {}
    for _, _, optimised in run.optimised():
        if optimised.has_info() and optimised.scores in run.where:
            ids = optimised.ids()
            for id in ids:
                out[id] = of_curve(run, optimised, id, len(ids))
    return out


def of_curve(run: RunFiles, optimised: Optimised, id: CurveId, arms: int) -> Spent:
    """One member's."""
    name, many = optimised.scores, members(id)
    scores, proxies = Scores(run.where[name]), run.where.get(name.replace("scores/", "proxies/"))
    training: float | None = 0.0
    if id.against_rm:
        rms = Proxies(proxies) if proxies else None
        training = share(rms, len(rms.rows()) if rms and rms.has_info() else 1, many)
    pool: float | None = 0.0
    if optimised.record.tokens is None:  # its responses are draws of the pool
        drawn = share(Stage(run.where[scores.samples]) if scores.samples in run.where else None, 1, 1)
        scored = share(scores, len(scores.rows()), many)
        pool = None if drawn is None or scored is None else drawn + scored
    own = [share(optimised, arms, 1)]
    for name in optimised.after:  # policies that it took were optimised too
        before = Optimised(run.where[name]) if name in run.where else None
        own.append(share(before, len(before.ids()) if before and before.has_info() else 1, 1))
    return Spent(None if None in own else sum(part or 0.0 for part in own), training, pool)
