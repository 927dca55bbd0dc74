"""What to expect of an RM that was not trained: in numbers (forecast.json), in words, and as a picture."""

from collections.abc import Sequence
from pathlib import Path

from rmo.analysis.curve import Curve, CurveError
from rmo.analysis.sweeps import Missing
from rmo.analysis.unmeasured import AXES, Sweep, checked, extrapolated, forecast, left_out, sweep_of
from rmo.methods import method as methods
from rmo.report.figures import style, unmeasured_rm
from rmo.runtime.files import write_json, write_text
from rmo.runtime.types import Row

KLS = (1.0, 2.0, 5.0, 10.0, 20.0)
LEFT_OUT = {"params": "each RM size left out in turn", "comparisons": "each number of comparisons left out in turn"}


def forecasts(
    curves: Sequence[Curve], params: int, comparisons: int | None, seeds: int, kls: Sequence[float], level: float
) -> Row:
    """All that forecast.json holds: a forecast for every method that allows one, and why another does not.

    Raises:
      CurveError: no method allows one; says why.
    """
    found, lacking, names = [], {}, {curve.method for curve in curves if not curve.id.against_gold}
    for method in methods.every():
        if method.name not in names:
            continue
        try:
            found.append(of_method(sweep_of(curves, method.name), params, comparisons, seeds, kls, level))
        except Missing as missing:
            lacking[method.name] = str(missing)
    if not names:
        raise CurveError("no curve is of an RM that was trained on labels: there is nothing to forecast from")
    if not found:
        raise CurveError("; ".join(f"{methods.find(name).title}: {why}" for name, why in lacking.items()))
    asked = {"rm_params": params, "rm_comparisons": comparisons, "seeds": seeds, "level": level}
    return {**asked, "methods": found, "lacking": lacking}


def of_method(
    sweep: Sweep, params: int, comparisons: int | None, seeds: int, kls: Sequence[float], level: float
) -> Row:
    """One method's part."""
    found = forecast(sweep, params, comparisons, seeds)
    used = found.sweep
    measured = [i for i, g in enumerate(used.groups) if (g.params, g.comparisons) == (params, found.comparisons)]
    return {
        **sweep.id.cells(), **found.row(level),
        "at": [found.at(kl, level) or {"kl": kl, "gold": None} for kl in kls or KLS],
        "rests_on": {"curves": len(used.gold_CK), **{axis: used.values(axis) for axis in AXES}},
        "extrapolated": extrapolated(used, params, found.comparisons),
        "measured": bool(measured), "band": found.band(level),
        "checks": {axis: check for axis in AXES if (check := checked(left_out(sweep, axis, level)))},
        "neighbours": [
            {"rm_params": g.params, "rm_comparisons": g.comparisons, "gold": used.mean_K(i).round(5).tolist()}
            for i, g in enumerate(used.groups)
        ],
    }  # fmt: skip


def lines(found: Row, asked_kls: bool = False) -> list[str]:
    """A forecast as a short text."""
    out = [f"{subject(found)}; {found['level']:.0%} intervals, gold in its standard deviations"]
    for row in found["methods"]:
        out += ["", *lines_of(row, asked_kls)]
    lacking = found["lacking"].items()
    return [*out, *(f"\n{methods.find(name).title}: no forecast: {why}" for name, why in lacking)]


def subject(found: Row) -> str:
    """What the forecast is of."""
    comparisons = found["rm_comparisons"] or next(row["rm_comparisons"] for row in found["methods"])
    many = f"an RM of {found['rm_params']:,} parameters" + (f", {comparisons:,} comparisons" if comparisons else "")
    return f"expected of {many}" + (f" (mean of {found['seeds']} seeds)" if found["seeds"] > 1 else "")


def lines_of(row: Row, asked_kls: bool) -> list[str]:
    """One method's lines."""
    rests = row["rests_on"]
    several = len(rests["comparisons"]) > 1
    sizes = f"{len(rests['params'])} RM sizes" + (f" and {len(rests['comparisons'])} numbers of comparisons" * several)
    special = " ".join(str(row[name]) for name in ("rm_combined", "rm_recipe", "settings") if row[name])
    title = methods.find(row["method"]).title + (f" ({special})" if special else "")
    out = [f"{title}: from {rests['curves']} curves, {sizes}, up to KL {row['range_kl']:.3g}"]
    out += [f"  {text}" for text in row["extrapolated"]]
    if row["measured"]:
        out.append("  such RMs were trained here: what they gave counts in it, for a new one of the kind")
    out.append(f"  highest gold {ranged(row['peak_gold'], row['peak_gold_interval'])}")
    out.append(f"  at KL        {ranged(row['peak_kl'], row['peak_kl_interval'])}")
    out.append(f"  stop at KL   {row['stop_kl']:.3g}{end(row)}")
    for at in row["at"]:
        if at["gold"] is not None:
            out.append(f"  gold at KL {at['kl']:<4g} {ranged(at['gold'], at['interval'])}")
        elif asked_kls:
            out.append(f"  gold at KL {at['kl']:<4g} not known: beyond KL {row['range_kl']:.3g}, which all runs reach")
    return [*out, *(f"  {text}" for text in check_lines(row))]


def end(row: Row) -> str:
    if row["stop_at_end"]:
        return ", as far as was measured: gold is expected to rise all the way"
    lost = f"{row['lost_at_stop']:.2f}, at most {max(row['lost_at_stop_interval'][1], 0):.2f}"
    return f": gold {row['gold_at_stop']:.2f}; missed by stopping there {lost}"


def check_lines(row: Row) -> list[str]:
    """How such forecasts did on what was measured."""
    out = []
    for axis, check in row["checks"].items():
        text = f"checked, {LEFT_OUT[axis]}: highest gold is missed by {check['median_error']:.0%} in the median"
        text += f" (worst {check['worst_error']:.0%}"
        if check["median_error_between"] is not None:
            text += f"; between other values {check['median_error_between']:.0%}"
        text += f"), {check['gold_inside']} of {check['rows']} lie in their intervals"
        out.append(
            f"{text}; stopping as forecast loses {check['median_regret']:.2f} (worst {check['worst_regret']:.2f})"
        )
    return out or ["not checked on this run: too few values to leave one out"]


def ranged(value: float, interval: Sequence[float]) -> str:
    return f"{value:.3g} [{interval[0]:.3g}, {interval[1]:.3g}]"


def write(found: Row, out: Path) -> list[Path]:
    """forecast.json and a picture, forecast.svg, into a directory."""
    write_json(out / "forecast.json", found)
    write_text(out / "forecast.svg", style.svg(unmeasured_rm.picture(found, subject(found))))
    return [out / "forecast.json", out / "forecast.svg"]
