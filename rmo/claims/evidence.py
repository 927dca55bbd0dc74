"""What claims are judged on: curves, reward models and policies of one run, on every resample of prompts and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rmo.analysis import sweeps
from rmo.analysis.bootstrap import Resamples, resample
from rmo.analysis.curve import Curve, common_d, regrid
from rmo.analysis.curve_id import COLUMNS, CurveId, Settings
from rmo.analysis.fitting import Family, Group, group, low_part
from rmo.analysis.forms import lower_end
from rmo.analysis.sweeps import Missing
from rmo.methods import method as methods
from rmo.runtime.types import Row


def smoothed(y_K: np.ndarray) -> np.ndarray:
    """Means over a twelfth of the points, f64[K]; over fewer at the ends."""
    window = np.ones(2 * (len(y_K) // 24) + 1)
    return np.convolve(y_K, window, "same") / np.convolve(np.ones(len(y_K)), window, "same")


class Line(NamedTuple):
    """The mean over seeds (and prompts) of one group's curves on a common grid of d."""

    d: np.ndarray  # f64[K]
    gold: np.ndarray  # f64[K]
    proxy: np.ndarray  # f64[K]
    halves: tuple[np.ndarray, np.ndarray]  # gold on the even and on the odd prompts
    end: float  # the largest d that every seed reaches
    whole: "Line | None" = None  # the same on the data as they are: places are looked for there; None where this is it

    def at(self, d: float | np.ndarray, score: str = "gold") -> np.ndarray:
        """Gold or proxy at d, linearly interpolated; of the shape of d."""
        return np.asarray(np.interp(d, self.d, getattr(self, score)))

    def tops(self, end: float) -> tuple[int, int]:
        """Where gold is highest up to d = `end` on either half of the prompts, on the data as they are: a height does
        not depend on its peak's place to first order, and at a fixed place it is smooth in the data."""
        count = int((self.d <= end + 1e-9).sum())
        a, b = (smoothed(half[:count]) for half in (self.whole or self).halves)
        return int(a.argmax()), int(b.argmax())

    def peak(self, end: float | None = None) -> tuple[float, float]:
        """(d, height) of the peak of gold up to d = `end` (by default the last). The place is looked for on one half of
        the prompts and the height read on the other, both ways round: the maximum of a noisy curve is not lifted by
        its noise."""
        i, j = self.tops(self.end if end is None else end)
        a, b = self.halves
        return float(self.d[i] + self.d[j]) / 2, float(b[i] + a[j]) / 2

    def fall(self, end: float | None = None) -> float:
        """How far gold lies below its peak at d = `end` (by default the last). The peak is looked for as in `peak`, in
        the first nine tenths of the range, so that gold which still rises has a fall below zero, not one of zero."""
        end = self.end if end is None else end
        return self.peak(0.9 * end)[1] - float(self.at(end))

    def place(self) -> float:
        """d of the peak: the centre of all that reaches 0.8 of its height, heavier where gold is higher. That is smooth
        in the data, which the place of the highest point of a flat top is not."""
        d, height = self.peak()
        above = np.maximum(self.gold - 0.8 * height, 0.0) ** 2
        total = float(np.trapezoid(above, self.d))
        return float(np.trapezoid(above * self.d, self.d)) / total if height > 0 and total > 0 else d

    @property
    def turned(self) -> bool:
        """Whether gold is highest before the end of the measured range."""
        return int(self.gold.argmax()) < len(self.gold) - 1


class Tables(NamedTuple):
    """One group's curves on the common grid, per seed and prompt."""

    d: np.ndarray  # f64[G]
    gold: np.ndarray  # f64[S, G, Q]
    proxy: np.ndarray  # f64[S, G, Q]
    columns: np.ndarray  # i[S], which of the evidence's curves


def shares(weight_NS: np.ndarray) -> np.ndarray:
    """Weights as rows of sum 1; the same for all where a row is 0."""
    total = weight_NS.sum(axis=1, keepdims=True)
    return np.divide(weight_NS, total, out=np.full(weight_NS.shape, 1 / weight_NS.shape[1]), where=total > 0)


def mean_curves(t: Tables, weight_NC: np.ndarray, share_NQ: np.ndarray) -> np.ndarray:
    """Means of gold and proxy over seeds and prompts, and of gold over the even and the odd prompts, f64[4, N, G]; over
    all prompts where there is no odd one."""
    weight_NS, every = shares(weight_NC[:, t.columns]), slice(None)
    gold, proxy = (np.einsum("sgq,nq->nsg", table, share_NQ, optimize=True) for table in (t.gold, t.proxy))
    halves = []
    for half in (slice(0, None, 2), slice(1, None, 2)) if share_NQ.shape[1] > 1 else (every, every):
        halves.append(np.einsum("sgq,nq->nsg", t.gold[:, :, half], shares(share_NQ[:, half]), optimize=True))
    return np.stack([np.einsum("ns,nsg->ng", weight_NS, x) for x in (gold, proxy, *halves)])


@dataclass
class Evidence:
    """All that a run measured.

    `reward_models` are rows with rm_params, rm_comparisons, rm_recipe, seed, validation_loss, validation_accuracy;
    `starts` gives each policy's own gold per prompt, by its parameter count, on one scale; `diagnostics` the tables of
    methods, by name, a row per point of a curve with its identity, kl and what the method says of its health.
    """

    curves: Sequence[Curve]
    reward_models: Sequence[Row] = ()
    starts: dict[int, np.ndarray] = field(default_factory=dict)
    draws: int = 1000
    seed: int = 0
    min_d: float = 0.3
    diagnostics: dict[str, list[Row]] = field(default_factory=dict)

    @cached_property
    def groups(self) -> dict[str, list[Group]]:
        return {method: group(self.curves, method) for method in methods.names()}

    @cached_property
    def resamples(self) -> Resamples:
        """One resampling for everything; RMs without a curve take part by a curve without points."""
        ghosts = [
            Curve(CurveId("", row["rm_params"], row["rm_comparisons"], seed=row["seed"]), *(np.zeros(0),) * 4)
            for row in self.reward_models
        ]
        return resample([*self.curves, *ghosts], self.draws, self.seed)

    @cached_property
    def tables(self) -> dict[int, Tables]:
        """By id of the group."""

        def prompts(c: Curve, score: str) -> np.ndarray:
            """Scores per prompt, f64[K, Q]; a curve without them counts as one prompt, whose error only seeds show."""
            table_KQ = getattr(c, f"{score}_KQ")
            return getattr(c, score)[:, None] if table_KQ is None else table_KQ

        place = {id(c): i for i, c in enumerate(self.curves)}
        out = {}
        for groups in self.groups.values():
            for g in groups:
                d = common_d(g.curves)
                gold = np.stack([regrid(d, c, prompts(c, "gold")) for c in g.curves])
                proxy = np.stack([regrid(d, c, prompts(c, "proxy")) for c in g.curves])
                out[id(g)] = Tables(d, gold, proxy, np.array([place[id(c)] for c in g.curves]))
        return out

    @cached_property
    def health(self) -> dict[CurveId, list[Row]]:
        """Rows of the diagnostics by the curve that they are of."""
        out: dict[CurveId, list[Row]] = {}
        for row in (row for rows in self.diagnostics.values() for row in rows):
            out.setdefault(CurveId.of_cells({name: row[name] for name in COLUMNS}), []).append(row)
        return out

    @cached_property
    def _fits(self) -> dict[tuple, np.ndarray]:
        return {}

    @cached_property
    def _means(self) -> dict[int, np.ndarray]:
        return {}

    @cached_property
    def _row_of(self) -> dict[int, int]:
        """Which of the rows that every smooth statistic is evaluated on a resample is."""
        return {int(n): i for i, n in enumerate(self.resamples.exact)}

    def mean_curves(self, g: Group, n: int) -> np.ndarray:
        """A group's mean gold and proxy, and gold on the even and the odd prompts, on resample n, f64[4, G]."""
        t, r = self.tables[id(g)], self.resamples
        if n not in self._row_of:
            return mean_curves(t, r.weight_NC[[n]], r.share_NQ[[n]])[:, 0]
        if id(g) not in self._means:
            self._means[id(g)] = mean_curves(t, r.weight_NC[r.exact], r.share_NQ[r.exact])
        return self._means[id(g)][:, self._row_of[n]]

    def sizes(self, method: str) -> list[Group]:
        """The main sweep over RM sizes, smallest first; of single RMs: gold as its own proxy has no size."""
        if method not in self._sizes:
            single = [g for g in self.groups[method] if not g.id.rm_combined]
            self._sizes[method] = sweeps.main_family(single, method)
        return self._sizes[method]

    @cached_property
    def _sizes(self) -> dict[str, list[Group]]:
        return {}

    @cached_property
    def whole(self) -> "View":
        """The data as they are."""
        return self.view(0)

    def fits(self, groups: Sequence[Group], score: str, shared: bool, max_kl_share: float) -> np.ndarray:
        """(alpha, beta) f64[N, G, 2] on every resample, made once.

        Raises:
          Missing: a group has too few points.
        """
        key = (tuple(id(g) for g in groups), score, shared, max_kl_share)
        if key not in self._fits:
            form = methods.find(groups[0].method).form
            cut = low_part(groups, max_kl_share) if max_kl_share < 1 else None
            family = Family(groups, form, shared, lower_end(form, self.min_d), cut, score)
            if short := family.too_short:
                raise Missing(f"a {short[0].method} curve with too few points to be fitted ({short[0].label(groups)})")
            place = {id(c): i for i, c in enumerate(self.curves)}
            columns = [place[id(c)] for c in family.curves]
            r = replace(self.resamples, weight_NC=self.resamples.weight_NC[:, columns])
            self._fits[key] = family.on(r)
        return self._fits[key]

    def view(self, n: int) -> "View":
        """The data as resample n weighs them."""
        return View(self, n, *self.resamples.row(n))


@dataclass
class View:
    """Everything a claim may look at, on one resample of prompts and seeds."""

    evidence: Evidence
    n: int
    share_Q: np.ndarray
    weight_C: np.ndarray
    used: dict[int, Group] = field(default_factory=dict)  # groups looked at, by id
    seeds: list[int] = field(default_factory=list)  # of reward models looked at
    lines: dict[int, Line] = field(default_factory=dict)  # made so far, by id of the group

    def all(self, method: str, **wanted: object) -> list[Group]:
        """`sweeps.plain` of a method's groups."""
        return sweeps.plain(self.evidence.groups[method], method, **wanted)

    def sizes(self, method: str, least: int = 3) -> list[Group]:
        """`Evidence.sizes`, of which there must be so many."""
        found = self.evidence.sizes(method)
        if len(found) < least:
            raise Missing(f"{method} against fewer than {least} RM sizes")
        return found

    def data(self, method: str, params: int) -> list[Group]:
        """One RM size over at least 3 numbers of comparisons, fewest first."""
        return sweeps.by_comparisons(self.evidence.groups[method], method, params, least=3)

    def weights(self, g: Group) -> np.ndarray:
        """How much each seed's curve counts here, f64[S], of sum 1; the same for all where none was drawn."""
        self.used[id(g)] = g
        return shares(self.weight_C[None, self.evidence.tables[id(g)].columns])[0]

    def line(self, g: Group) -> Line:
        """A group's mean curve here."""
        if id(g) not in self.lines:
            self.used[id(g)] = g
            t, (gold, proxy, even, odd) = self.evidence.tables[id(g)], self.evidence.mean_curves(g, self.n)
            whole = self.evidence.whole.line(g) if self.n else None
            self.lines[id(g)] = Line(t.d, gold, proxy, (even, odd), float(t.d[-1]), whole)
        return self.lines[id(g)]

    def fits(
        self, groups: Sequence[Group], score: str = "gold", shared: bool = False, max_kl_share: float = 1.0
    ) -> np.ndarray:
        """(alpha, beta) f64[G, 2] here, of gold or of the proxy."""
        for g in groups:
            self.used[id(g)] = g
        return self.evidence.fits(groups, score, shared, max_kl_share)[self.n]

    def turned(self, g: Group) -> bool:
        """Whether a group's gold peaks within the measured range, on the data as they are (the same on all resamples,
        so that a statistic does not change its meaning between them)."""
        return self.evidence.whole.line(g).turned

    def given(self, g: Group) -> tuple[np.ndarray, np.ndarray]:
        """(bound, estimate from the winners' probabilities) of best-of-n's KL, f64[K] each."""
        if any(c.kl_given_KQ is None for c in g.curves):
            raise Missing("no log-probabilities of the winners")
        tables = [c.kl_given_KQ @ self.share_Q for c in g.curves if c.kl_given_KQ is not None]
        return g.curves[0].kl, self.weights(g) @ np.stack(tables)

    def steps(self, g: Group) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """(step, KL, weight) of every seed."""
        return [(c.step_or_n, c.kl, w) for c, w in zip(g.curves, self.weights(g), strict=True)]

    def diagnostic(self, g: Group, name: str) -> list[tuple[np.ndarray, float]]:
        """(one number per point f64[K], weight) of every seed."""
        tables = [self.evidence.health.get(c.id) for c in g.curves]
        if not all(tables):
            raise Missing(f"no {name} along {g.method}")
        values = [np.array([row[name] for row in rows], np.float64) for rows in tables if rows]
        return list(zip(values, map(float, self.weights(g)), strict=True))

    def rms(self, **wanted: object) -> list[tuple[int, int]]:
        """(rm_params, rm_comparisons) of the reward models with these fields, each once; plain ones by default."""
        wanted = {"rm_recipe": Settings()} | wanted
        rows = [r for r in self.evidence.reward_models if all(r[n] == v for n, v in wanted.items())]
        return sorted({(row["rm_params"], row["rm_comparisons"]) for row in rows})

    def rm(
        self, params: int, comparisons: int, column: str = "validation_loss", recipe: Settings | None = None
    ) -> float:
        """A metric of a reward model, trained as in the paper if no recipe is given, averaged over seeds."""
        wanted = params, comparisons, recipe or Settings()
        first, total, value, count = len(self.evidence.curves), 0.0, 0.0, 0
        for i, row in enumerate(self.evidence.reward_models):
            if (row["rm_params"], row["rm_comparisons"], row["rm_recipe"]) == wanted and row.get(column) is not None:
                weight = self.weight_C[first + i]
                total, value, count = total + weight, value + weight * row[column], count + 1
        if not total:
            how = f" ({recipe})" if recipe else ""
            raise Missing(f"no {column} of a reward model of {params} parameters on {comparisons} comparisons{how}")
        self.seeds.append(count)
        return value / total

    def start(self, policy: int | None) -> float:
        """Where a policy's own gold lies, on the scale of the main policy."""
        if policy not in self.evidence.starts:
            raise Missing("one initial policy only")
        return float(self.evidence.starts[policy] @ self.share_Q)
