"""Tables and sentences of the report, as HTML."""

import html
from typing import Any

import numpy as np

from rmo.analysis import fitting
from rmo.analysis.curve import Curve
from rmo.artifacts.run_files import RunFiles
from rmo.methods import method as methods
from rmo.methods.method import find
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.report.figures.style import mean_curve, size


def table(head: list[str], rows: list[list[Any]], text: tuple[int, ...] = (), kind: str = "text") -> str:
    """HTML table; columns in `text` are to the left and may be long: what was written, or (`kind` prose) said of it."""
    of = lambda i: f" class={kind}" if i in text else ""  # noqa: E731
    lines = ["".join(f"<th{of(i)}>{html.escape(h)}</th>" for i, h in enumerate(head))]
    lines += ["".join(f"<td{of(i)}>{html.escape(number(x))}</td>" for i, x in enumerate(row)) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def number(x: Any) -> str:
    """Three decimals for floats, separators for integers, [low, high] for intervals."""
    if x is None:
        return "–"
    if isinstance(x, float):
        return "∞" if np.isposinf(x) else "–" if np.isnan(x) else f"{x:,.3f}" if abs(x) < 1000 else f"{x:,.0f}"
    if isinstance(x, int) and not isinstance(x, bool):
        return f"{x:,}"
    if isinstance(x, list):
        return "[" + ", ".join(number(v) for v in x) + "]"
    return str(x)


def summary_sentence(curves: list[Curve], claims: list[dict[str, Any]], unit: str = "") -> str:
    """What happened to the smallest and the largest proxy, in words computed from the curves and, where they were
    judged, claims C1a and C1b."""
    parts, verdicts = [], {c["claim"]: c["verdict"] for c in claims}
    for method in methods.every():
        everything = fitting.group(curves, method.name)
        groups = fitting.families(everything)[0] if everything else []
        ends = [("smallest ", groups[0]), ("largest ", groups[-1])] if len(groups) > 1 else [("", g) for g in groups]
        for place, group in ends:
            kl, gold = mean_curve(group, "gold")
            i = int(gold.argmax())
            where = f"read highest, {gold[i]:.2f}, at KL {kl[i]:.1f} and ended at {gold[-1]:.2f} at KL {kl[-1]:.1f}"
            if i == len(gold) - 1:
                where = f"still highest, {gold[-1]:.2f}, at the end, KL {kl[-1]:.1f}"
            text = method.title
            if place or group.params:
                text += f" against the {place}proxy" + (f" ({size(group.params)} parameters)" if group.params else "")
            text += f": gold was {where}"
            if all(np.isfinite(c.proxy).all() for c in group.curves):
                text += f", where the proxy said {mean_curve(group, 'proxy')[1][-1]:.2f}"
            claim = {BEST_OF_N: "C1a", PPO: "C1b"}.get(method.name, "")
            if place == "smallest " and claim in verdicts:
                text += f" (that it rises and falls: {verdicts[claim]})"
            parts.append(text)
    text = ".<br>".join(p[0].upper() + p[1:] for p in parts)
    several = any(len(g.curves) > 1 for name in methods.names() for g in fitting.group(curves, name))
    return f"<p>{text}.{unit}{' Means over RM seeds.' if several else ''}</p>"


def peak_text(x: Any) -> str:
    """The KL or the height of a peak, or an interval of it; what is never reached is infinite, and null in JSON."""
    if isinstance(x, list):
        return "[" + ", ".join(map(peak_text, x)) + "]"
    return f"{x:.3g}" if x is not None and np.isfinite(x) else "beyond the data"


def coefficient_table(part: dict[str, Any]) -> str:
    """Coefficients, fit quality and peaks per group."""
    head = [
        "RM" if any(g["rm_params"] for g in part["groups"]) else "curve",
        "seeds",
        "α",
        "interval",
        "β",
        "interval",
        "R²",
        "R² (α free)",
        "peak gold (fit)",
        "interval",
        "at KL",
        "interval",
        "peak measured",
        "at KL",
    ]
    rows = [
        [g["group"], g["seeds"], g["alpha"], g["alpha_interval"], g["beta"], g["beta_interval"], g["r2"], g["r2_alone"],
         *(peak_text(g[name + end]) for name in ("peak_gold", "peak_kl") for end in ("", "_interval")),
         g["measured_peak_gold"], g["measured_peak_kl"]]
        for g in part["groups"]
    ]  # fmt: skip
    left_out = f" Points with √KL below {part['min_d']:g} are left out of the fit." if part["min_d"] else ""
    over = "; ".join(dict.fromkeys(g["interval_from"] for g in part["groups"]))
    note = f"<p class=note>{part['level']:.0%} intervals: {part['bootstrap']:,} bootstrap draws over {over}.{left_out} "
    note += "“Peak measured” is the mean over seeds of the highest point, so noise lifts it a little.</p>"
    if part["too_short"]:
        note += f"<p class=note>Not fitted, for want of points: {html.escape('; '.join(part['too_short']))}.</p>"
    return table(head, rows) + note


def advice_table(part: dict[str, Any]) -> str:
    """Where to stop, group by group."""
    rows = []
    for g, a in ((g, g["advice"]) for g in part["groups"]):
        rows.append([g["group"], a["sentence"], a["turned_probability"], a["reach_kl"], a["trusted_to_kl"]])
    note = "<p class=note>Trusted to: where the data end, or beyond that as far as fits to their lower part forecast "
    note += "the rest without a miss.</p>"
    return table(["", "where to stop", "P(gold has turned)", "data to KL", "trusted to KL"], rows, (1,), "prose") + note


def trend_text(summary: dict[str, Any]) -> str:
    """Slopes per decade of RM parameters."""
    rows = [
        [f"{'αβ'[name == 'beta']}, {find(method).title}", trend["per_decade"], trend["interval"]]
        for method, part in summary.items() for name, trend in part["trends"].items()
    ]  # fmt: skip
    return table(["coefficient", "change per decade of parameters", "interval"], rows) if rows else ""


def rivals_table(part: dict[str, Any]) -> str:
    """Rival forms by held-out error: fitted on the lower half of the KL range, scored on the upper."""
    ranked = sorted(part["extrapolation"].items(), key=lambda item: item[1]["held_out_rmse"] or np.inf)
    known = any("interval" in x for _, x in ranked)
    over = lambda x: [x.get("interval"), x.get("mean_rank"), x.get("best_share")] if known else []  # noqa: E731
    rows = [
        [name + (" (the paper's)" if name == part["form"] else ""), x["held_out_rmse"], *over(x), x["held_out_spread"],
         x["scored"]]
        for name, x in ranked
    ]  # fmt: skip
    note = f"<p class=note>Extrapolation{of_sweep(part)}: each form fitted per curve on the lower half of its KL "
    note += "range, scored on the rest. "
    note += (
        "Mean rank and how often a form is best are over resamples of prompts and seeds.</p>" if known else
        "There are no prompts or seeds to resample, so that nothing says how sure the order is.</p>"
    )  # fmt: skip
    resampled = ["interval", "mean rank", "best"] if known else []
    head = ["form", "held-out RMSE", *resampled, "spread of the held-out gold", "curves"]
    return table(head, rows) + note


def of_sweep(part: dict[str, Any]) -> str:
    """Which curves a table of the main sweep is about, where there are others."""
    if part["main"] == len(part["groups"]):
        return ""
    return f" ({html.escape(', '.join(g['group'] for g in part['groups'][: part['main']]))} alone)"


def laws_table(summary: dict[str, Any]) -> str:
    """Laws of the coefficients against RM size, by leave-one-size-out error."""
    rows = [
        [f"{'αβ'[name == 'beta']}, {find(method).title}", law, x["leave_one_out_rmse"], x["best_share"]]
        for method, part in summary.items() for name, laws in part.get("laws", {}).items() for law, x in laws.items()
    ]  # fmt: skip
    head = ["coefficient", "law", "leave-one-size-out error", "best over resamples"]
    return table(head, rows) if rows else ""


def lower_end_table(part: dict[str, Any]) -> str:
    """What the lower end of the RL fit's range does."""
    rows = [
        [row["min_d"], row["alpha"], min(row["beta"]), max(row["beta"]), row["held_out_rmse"]]
        for row in part.get("lower_end", [])
    ]
    note = "<p class=note>The RL form has infinite slope at d = 0, so points with d = √KL below a limit are left out; "
    note += f"the fits above use {part['min_d']:g}. What other limits give{of_sweep(part)}:</p>"
    return note + table(["fitted from d", "α", "lowest β", "highest β", "held-out RMSE"], rows) if rows else ""


def side(v: dict[str, float]) -> str:
    """Where a mean lies against 0, two standard errors being the measure."""
    low, high = v["gold_mean"] - 2 * v["gold_se"], v["gold_mean"] + 2 * v["gold_se"]
    return "below" if high < 0 else "above" if low > 0 else "not measurably off"


def gold_section(run: RunFiles, gold: dict[str, Any]) -> str:
    """Gold is the truth by definition; here is how it relates to the annotator it learned from, and to broken text."""
    info = run.stage("gold").info()
    broken = {k: v for k, v in gold.items() if k.startswith(("garbled", "collapsed"))}
    verdict = " ".join(
        f"{k.capitalize()} text scores {v['gold_mean']:+.2f} ± {v['gold_se']:.2f}, "
        f"{side(v)} the initial policy's mean of 0." for k, v in broken.items()
    )  # fmt: skip
    sentence = info.get("sentence", f"of kind {info['kind']}")  # runs of earlier versions have none
    text = f"<p>Gold is {html.escape(sentence)} ({info['params']['non_embedding']:,} parameters without embeddings). "
    if "held_out_broad_text" in info:
        found = info["held_out_broad_text"]["rank_correlation"]
        text += f"On held-out broad text its rank correlation with the annotator is {found:.3f}. "
    if "held_out_people" in info:
        text += people_sentence(info["held_out_people"], info["comparisons"]["held_out"])
    text += f"It is the truth of this run by definition. {verdict}</p>"
    drift = run.stage("comparisons").info().get("gold_through_text")
    if drift:
        text += (
            f"<p>Gold reads text through a tokenizer of its own: {drift['tokens']:.2f} of its tokens per token of the "
            f"policy's. Of {drift['texts']:,} responses {drift['changed']:.1%} would be other ids if the policy's "
            f"tokenizer wrote their text anew, {drift['not_text']:.1%} hold bytes that are no text, "
            f"{drift['special']:.1%} spell a special token of gold's, and {drift['unfinished']:.1%} ran out of room. "
            f"{cut_texts(run)}</p>"
        )
    known = {"rank_correlation": "rank correlation with annotator", "annotator_mean": "annotator mean"}
    known = {k: v for k, v in known.items() if any(row[k] is not None for row in gold.values())}
    columns = {"texts": "how many", "gold_mean": "gold mean", "gold_se": "s.e.", **known, "length": "tokens"}
    return text + table(["texts", *columns.values()], [[k, *(v[n] for n in columns)] for k, v in gold.items()])


def cut_texts(run: RunFiles) -> str:
    """How many texts of optimised policies were too long for gold's or a proxy's fixed length, at worst."""
    names = ("proxy_cut", "gold_cut")
    found = [o.record.diagnostics for _, _, o in run.optimised()]
    worst = max((float(d[name].max()) for d in found for name in names if name in d), default=0.0)
    return f"At one point up to {worst:.1%} of texts were too long for an RM and lost their beginning." if worst else ""


def people_sentence(p: dict[str, Any], size: int) -> str:
    """How gold agrees with people on comparisons that it was not trained on."""
    low, high = p["accuracy_interval"]
    return (
        f"On {size:,} held-out comparisons it chose as people did {p['accuracy']:.3f} [{low:.3f}, {high:.3f}] of the "
        f"time; calibration error {p['calibration_error']:.3f}; rank correlation of score and length "
        f"{p['length_correlation']:.2f}; people preferred the longer response {p['longer_wins']:.3f} of the time, gold "
        f"{p['scores_longer']:.3f}. "
    )


# The paper's Table 1 and, read from its Figures 1 and 3 by a third party, its coefficients (policy 1.2B, 90k pairs):
# RM parameters -> alpha and beta of best-of-n, beta of RL. The paper prints no numbers; errors are about 0.003.
PAPER = {
    3e6: (0.490, 0.120, 0.175), 12e6: (0.513, 0.120, 0.167), 25e6: (0.558, 0.115, 0.152), 42e6: (0.548, 0.111, 0.146),
    85e6: (0.599, 0.106, 0.137), 300e6: (0.633, 0.0995, 0.124), 680e6: (0.649, 0.098, 0.119),
    1.2e9: (0.653, 0.0965, 0.122), 3e9: (0.662, 0.090, 0.118),
}  # fmt: skip


def paper_table(summary: dict[str, Any]) -> str:
    """The paper's coefficients beside ours: ends of the range of sizes, and change per decade."""
    x = np.log10(list(PAPER))
    names = {(BEST_OF_N, "alpha"): 0, (BEST_OF_N, "beta"): 1, (PPO, "beta"): 2}
    rows = []
    for (method, name), column in names.items():
        theirs = np.array([values[column] for values in PAPER.values()])
        slope = float(np.polyfit(x, theirs, 1)[0])
        trend = summary.get(method, {}).get("trends", {}).get(name)
        label = f"{'αβ'[name == 'beta']}, {find(method).title}"
        if not trend:
            rows.append([label, float(theirs[0]), float(theirs[-1]), slope, *[float("nan")] * 4])
            continue
        main = summary[method]["groups"][: summary[method]["main"]]
        rows.append([label, float(theirs[0]), float(theirs[-1]), slope, main[0][name], main[-1][name],
                     trend["per_decade"], trend["interval"]])  # fmt: skip
    head = ["coefficient", "paper, 3M", "paper, 3B", "paper, per decade", "here, smallest RM", "here, largest RM",
            "here, per decade", "interval"]  # fmt: skip
    note = "<p class=note>The paper's values are read off its figures by a third party (it prints none).</p>"
    return note + table(head, rows)


def table_1(e: dict[str, Any]) -> str:
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


def region(low: float | None, high: float | None) -> str:
    """Where a statistic must lie for its claim to hold."""
    if low is None or high is None:
        return f"above {low:.3g}" if high is None else f"below {high:.3g}"
    return f"{low:g} to {high:g}"


def count_verdicts(claims: list[dict[str, Any]]) -> str:
    """How many claims hold."""
    of = {v: sum(c["verdict"] == v for c in claims) for v in ("holds", "fails", "undecided")}
    return (
        f"Of {len(claims)} statements {of['holds']} hold here, {of['fails']} fail and {of['undecided']} are undecided."
    )


def claims_table(claims: list[dict[str, Any]], drawn: set[str]) -> str:
    """Every claim with its verdict; figures that exist are linked. Those that cannot be measured here are folded."""
    lines, nothing = [], []
    for c in claims:
        if c["statistic"] is None:
            nothing.append(f"{c['claim']}. {c['text']}: {c['why']}")
            continue
        link = f"<a href='#{c['figure']}'>{c['figure']}</a>" if c["figure"] in drawn else c["figure"]
        why = f"<br><span class=note>{html.escape(c['why'])}</span>" if c["why"] else ""
        cells = [
            f"<td>{c['claim']}</td><td class=prose>{html.escape(c['text'])}<br><span class=note>"
            f"{html.escape(c['measured'])}</span></td>",
            f"<td class='verdict {c['verdict']}'>{c['verdict']}{why}</td><td>{number(c['statistic'])}</td>",
            f"<td>{number(c['interval']) if c['interval'] else '–'}</td><td>{region(*c['threshold'])}</td>",
            f"<td>{c['n_runs']}</td><td>{link}</td>",
        ]
        lines.append("<tr>" + "".join(cells) + "</tr>")
    head = ["", "claim, and what is measured", "verdict", "statistic", "interval", "holds if", "runs", "figure"]
    prose = ("claim, and what is measured", "verdict")
    heads = "".join(f"<th{' class=text' if h in prose else ''}>{h}</th>" for h in head)
    told = f"<table><tr>{heads}</tr>{''.join(lines)}</table>" if lines else ""
    if nothing:
        items = "".join(f"<li>{html.escape(item)}</li>" for item in nothing)
        summary = f"{len(nothing)} more, for which this run has no data"
        told += f"<details><summary>{summary}</summary><ul>{items}</ul></details>"
    return told
