"""What optimisers make of their KL: from the records of a run to the tables `efficiency` and `annotator`."""

from collections.abc import Iterator, Sequence

import numpy as np

from rmo.analysis.curve import Curve, axis_number
from rmo.analysis.curve_id import COLUMNS as ID
from rmo.analysis.curve_id import CurveId
from rmo.analysis.efficiency import InitialTexts, Parts, beside, describe_texts
from rmo.analysis.fitting import group
from rmo.analysis.parting import parting
from rmo.analysis.sweeps import Missing, gold_group
from rmo.artifacts.measured import curves
from rmo.artifacts.stages import Optimised, Samples, Scores
from rmo.experiment.audit import rank_correlation
from rmo.experiment.pool import gold_table
from rmo.experiment.run import Run
from rmo.methods import method as methods
from rmo.methods.method import Method
from rmo.methods.paper import BEST_OF_N
from rmo.methods.tilt import METHOD as TILT
from rmo.methods.wording import features, one_hot
from rmo.runtime.files import Row

KLS = (1.0, 2.0, 4.0, 6.0)  # nats at which optimisers are compared
PARTS = [f"{what}_{part}" for what in ("kl", "gold") for part in Parts._fields]
COLUMNS = [*ID, "step_or_n", "kl", "gold", *PARTS]


def initial_texts(run: Run) -> InitialTexts:
    """The main policy's pool as `describe_texts` has it."""
    samples, world = Samples(run.path("samples")), run.world
    gold_QN, longest = gold_table(run, samples), run.experiment.world.response

    def tables() -> Iterator[tuple]:
        for q, gold_N in enumerate(gold_QN):
            draws = samples.draws(q)
            length_N, rates_NW = features(draws.tokens, draws.mask, world.eos, world.vocab)
            yield one_hot(length_N, longest), rates_NW, gold_N

    return describe_texts(tables())


def split_rows(initial: InitialTexts, method: Method, optimised: Optimised, scores: Scores) -> Iterator[Row]:
    """KL and gold of every point against gold itself by what makes them; of a record without its wording no rows."""
    record = optimised.record
    if record.wording is None or not all(id.against_gold for id in optimised.ids()):
        return
    for m, curve in enumerate(curves(method, optimised, scores)):
        keep = record.points(m)
        lengths_KL, rates_KW, texts_K = (x[m, keep].astype(np.float64) for x in record.wording)
        kl = initial.kl_parts(curve.kl, lengths_KL, rates_KW, texts_K)
        gold = initial.gold_parts(curve.gold, lengths_KL, rates_KW)
        for i, step in enumerate(curve.step_or_n):
            point = {"step_or_n": axis_number(float(step)), "kl": float(curve.kl[i]), "gold": float(curve.gold[i])}
            yield {**curve.id.cells(), **point, **dict(zip(PARTS, (float(x[i]) for x in (*kl, *gold)), strict=True))}


def against_gold(found: Sequence[Curve], draws: int, level: float) -> dict[str, dict[str, list[Row]]]:
    """{what is compared with: {method: gold beside its gold at equal KL}}, of curves against gold itself."""
    groups = {}
    for method in methods.every():
        try:
            groups[method.name] = gold_group(group(found, method.name), method.name)
        except Missing:
            continue
    out: dict[str, dict[str, list[Row]]] = {}
    for frontier in (TILT.name, BEST_OF_N):
        if frontier in groups:
            others = {name: g for name, g in groups.items() if name not in (frontier, TILT.name)}
            most = groups[frontier].curves[0]
            out[frontier] = {name: beside(g.curves, most, KLS, draws, level) for name, g in others.items()}
    return out


def annotator_rows(stages: Sequence[tuple[Method, Optimised, Scores]], draws: int, level: float) -> list[Row]:
    """How gold agrees with the annotator along the path of every group of curves, seeds averaged, and where they part;
    none without an annotator."""
    found: dict[CurveId, list[tuple[Curve, np.ndarray]]] = {}
    for method, optimised, scores in stages:
        record = optimised.record
        if record.annotator is None:
            continue
        for m, curve in enumerate(curves(method, optimised, scores)):
            keep = record.points(m)
            found.setdefault(curve.id.group, []).append((curve, record.annotator[m, keep] - record.gold[m, keep]))
    rows = []
    for id, members in found.items():
        paths = [(c.gold, c.gold + apart_KQ.mean(-1)) for c, apart_KQ in members]
        ends = np.mean([(gold[-1], annotator[-1]) for gold, annotator in paths], axis=0)
        rows.append({
            **id.cells(),
            "rank_correlation": float(np.mean([rank_correlation(*path) for path in paths])),
            "gold_end": float(ends[0]),
            "annotator_end": float(ends[1]),
            **parting([c for c, _ in members], [apart_KQ for _, apart_KQ in members], draws, level)._asdict(),
        })  # fmt: skip
    return rows
