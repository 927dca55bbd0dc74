"""Tables of the report, as HTML: how any table is written, and those of fits and of the paper's numbers."""

import html
from collections.abc import Sequence

import numpy as np

from rmo.methods.method import find
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.report.figures.style import GREEK
from rmo.runtime.types import Json, Row


def table(head: Sequence[str], rows: Sequence[Sequence[object]], text: Sequence[int] = (), kind: str = "text") -> str:
    """HTML table; columns in `text` are to the left and may be long: what was written, or (`kind` prose) said of it."""

    def line(tag: str, cells: Sequence[object]) -> str:
        kinds = [f" class={kind}" if i in text else "" for i in range(len(cells))]
        parts = [f"<{tag}{k}>{html.escape(number(x))}</{tag}>" for k, x in zip(kinds, cells, strict=True)]
        return f"<tr>{''.join(parts)}</tr>"

    return f"<table>{line('th', head)}{''.join(line('td', row) for row in rows)}</table>"


def number(x: object) -> str:
    """Three decimals for floats, separators for integers, [low, high] for intervals; a text as it is."""
    if x is None:
        return "–"
    if isinstance(x, float):
        return decimals(x)
    if isinstance(x, int) and not isinstance(x, bool):
        return f"{x:,}"
    if isinstance(x, list):
        return "[" + ", ".join(number(v) for v in x) + "]"
    return str(x)


def decimals(x: float) -> str:
    if np.isnan(x):
        return "–"
    if np.isposinf(x):
        return "∞"
    return f"{x:,.3f}" if abs(x) < 1000 else f"{x:,.0f}"


def peak_text(x: Json) -> str:
    """The KL or the height of a peak, or an interval of it; what is never reached is infinite, and null in JSON."""
    if isinstance(x, list):
        return "[" + ", ".join(map(peak_text, x)) + "]"
    return f"{x:.3g}" if x is not None and np.isfinite(x) else "beyond the data"


def note(text: str) -> str:
    return f"<p class=note>{text}</p>"


# Fits. `part` is what coefficients.json holds of one method, `summary` the whole file.


def coefficient_table(part: Row) -> str:
    """Coefficients, fit quality and peaks per group; which groups were not fitted."""
    short = "; ".join(part["too_short"])
    missed = note(f"Not fitted, for want of points: {html.escape(short)}.") if short else ""
    if not part["groups"]:
        return missed
    first = "RM" if any(g["rm_params"] for g in part["groups"]) else "curve"
    fitted = ["seeds", "α", "interval", "β", "interval", "R²", "R² (α free)"]
    peaks = ["peak gold (fit)", "interval", "at KL", "interval", "peak measured", "at KL"]
    rows = [coefficient_row(g) for g in part["groups"]]
    over = "; ".join(dict.fromkeys(g["interval_from"] for g in part["groups"]))
    said = f"{part['level']:.0%} intervals: {part['bootstrap']:,} bootstrap draws over {html.escape(over)}."
    if part["min_d"]:
        said += f" Points with √KL below {part['min_d']:g} are left out of the fit."
    said += " “Peak measured” is the mean over seeds of the highest point, so noise lifts it a little."
    return table([first, *fitted, *peaks], rows) + note(said) + missed


def coefficient_row(g: Row) -> list[object]:
    fitted = [g["alpha"], g["alpha_interval"], g["beta"], g["beta_interval"], g["r2"], g["r2_alone"]]
    peaks = [peak_text(g[name + end]) for name in ("peak_gold", "peak_kl") for end in ("", "_interval")]
    return [g["group"], g["seeds"], *fitted, *peaks, g["measured_peak_gold"], g["measured_peak_kl"]]


def advice_table(part: Row) -> str:
    """Where to stop, group by group; nothing where none was fitted."""
    if not part["groups"]:
        return ""
    rows = []
    for g in part["groups"]:
        a = g["advice"]
        rows.append([g["group"], a["sentence"], a["turned_probability"], a["reach_kl"], a["trusted_to_kl"]])
    said = "Trusted to: where the data end, or beyond that as far as fits to their lower part forecast the rest "
    said += "without a miss."
    head = ["", "where to stop", "P(gold has turned)", "data to KL", "trusted to KL"]
    return table(head, rows, (1,), "prose") + note(said)


def coefficient_name(name: str, method: str) -> str:
    return f"{GREEK[name]}, {find(method).title}"


def trend_text(summary: Row) -> str:
    """Slopes per decade of RM parameters; nothing where none is known."""
    rows = [
        [coefficient_name(name, method), trend["per_decade"], trend["interval"]]
        for method, part in summary.items()
        for name, trend in part["trends"].items()
    ]
    return table(["coefficient", "change per decade of parameters", "interval"], rows) if rows else ""


def laws_table(summary: Row) -> str:
    """Laws of the coefficients against RM size, by leave-one-size-out error; nothing where none was fitted."""
    rows = [
        [coefficient_name(name, method), law, x["leave_one_out_rmse"], x["best_share"]]
        for method, part in summary.items()
        for name, laws in part.get("laws", {}).items()
        for law, x in laws.items()
    ]
    head = ["coefficient", "law", "leave-one-size-out error", "best over resamples"]
    return table(head, rows) if rows else ""


def rivals_table(part: Row) -> str:
    """Rival forms by held-out error: fitted on the lower half of the KL range, scored on the upper."""
    forms = part["extrapolation"]
    ranked = sorted(forms, key=lambda form: forms[form]["held_out_rmse"] or np.inf)
    resampled = any("interval" in x for x in forms.values())
    rows = [rival_row(form, forms[form], form == part["form"], resampled) for form in ranked]
    columns = ["interval", "mean rank", "best"] if resampled else []
    head = ["form", "held-out RMSE", *columns, "spread of the held-out gold", "curves"]
    said = f"Extrapolation{of_sweep(part)}: each form fitted per curve on the lower half of its KL range, scored on "
    said += "the rest. "
    if resampled:
        said += "Mean rank and how often a form is best are over resamples of prompts and seeds."
    else:
        said += "There are no prompts or seeds to resample, so that nothing says how sure the order is."
    return table(head, rows) + note(said)


def rival_row(form: str, x: Row, ours: bool, resampled: bool) -> list[object]:
    columns = [x.get("interval"), x.get("mean_rank"), x.get("best_share")] if resampled else []
    name = f"{form} (the paper's)" if ours else form
    return [name, x["held_out_rmse"], *columns, x["held_out_spread"], x["scored"]]


def of_sweep(part: Row) -> str:
    """Which curves a table of the main sweep is about, where there are others."""
    if part["main"] == len(part["groups"]):
        return ""
    names = ", ".join(g["group"] for g in part["groups"][: part["main"]])
    return f" ({html.escape(names)} alone)"


def lower_end_table(part: Row) -> str:
    """What the lower end of the fitted range does; nothing where the form has no such limit."""
    rows = [
        [row["min_d"], row["alpha"], min(row["beta"]), max(row["beta"]), row["held_out_rmse"]]
        for row in part.get("lower_end", [])
    ]
    said = "The RL form has infinite slope at d = 0, so points with d = √KL below a limit are left out; the fits above "
    said += f"use {part['min_d']:g}. What other limits give{of_sweep(part)}:"
    head = ["fitted from d", "α", "lowest β", "highest β", "held-out RMSE"]
    return note(said) + table(head, rows) if rows else ""


# The paper's numbers.

# The paper's Table 1 and, read from its Figures 1 and 3 by a third party, its coefficients (policy 1.2B, 90k pairs):
# RM parameters -> alpha and beta of best-of-n, beta of RL. The paper prints no numbers; errors are about 0.003.
PAPER = {
    3e6: (0.490, 0.120, 0.175), 12e6: (0.513, 0.120, 0.167), 25e6: (0.558, 0.115, 0.152), 42e6: (0.548, 0.111, 0.146),
    85e6: (0.599, 0.106, 0.137), 300e6: (0.633, 0.0995, 0.124), 680e6: (0.649, 0.098, 0.119),
    1.2e9: (0.653, 0.0965, 0.122), 3e9: (0.662, 0.090, 0.118),
}  # fmt: skip
PAPER_COLUMNS = ((BEST_OF_N, "alpha"), (BEST_OF_N, "beta"), (PPO, "beta"))


def paper_table(summary: Row) -> str:
    """The paper's coefficients beside ours: ends of the range of sizes, and change per decade."""
    rows = []
    for column, (method, name) in enumerate(PAPER_COLUMNS):
        theirs = np.array([values[column] for values in PAPER.values()])
        slope = float(np.polyfit(np.log10(list(PAPER)), theirs, 1)[0])
        ours = our_coefficients(summary.get(method, {}), name)
        rows.append([coefficient_name(name, method), float(theirs[0]), float(theirs[-1]), slope, *ours])
    paper = ["paper, 3M", "paper, 3B", "paper, per decade"]
    here = ["here, smallest RM", "here, largest RM", "here, per decade", "interval"]
    said = note("The paper's values are read off its figures by a third party (it prints none).")
    return said + table(["coefficient", *paper, *here], rows)


def our_coefficients(part: Row, name: str) -> list[object]:
    """At the smallest and the largest RM of the main sweep, per decade, and the interval of that, where known."""
    trend = part.get("trends", {}).get(name)
    if not trend:
        return [None] * 4
    main = part["groups"][: part["main"]]
    return [main[0][name], main[-1][name], trend["per_decade"], trend["interval"]]


def table_1(e: Row) -> str:
    """The paper's Table 1 beside this run's."""
    rm, rl = e["proxies"], e[PPO]
    rows = [
        ["RM Adam learning rate", "1.67e-2 × GPT-3's", f"{rm['optimizer']['lr']:g} at width 16, × 16/width"],
        ["RM batch size", "64", str(rm["batch"])],
        ["RL Adam learning rate", "4e-3 × GPT-3's", f"{rl['policy_optimizer']['lr']:g}"],
        ["RL batch size (episodes)", "256", str(rl["batch"])],
        ["RL PPO clipping parameter", "0.2", f"{rl['clip']:g}"],
        ["RL timesteps per rollout", "256", "1 (a timestep is a whole episode)"],
        ["RL minibatches per epoch", "128", str(rl["minibatches"])],
        ["RL GAE bootstrapping parameter", "0.95", f"{rl['lam']:g}"],
    ]
    return table(["hyper-parameter", "paper", "here"], rows, text=(1, 2))
