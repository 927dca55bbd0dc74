"""report.html and the figures of a run, from the run directory's files alone: one file, openable anywhere."""

import html
from pathlib import Path
from typing import Any

import numpy as np

from rmo import data, fit, plots
from rmo.curve import METHODS, Curve, from_rows
from rmo.files import RunError, read_csv, read_json, read_npz, write_text

CSS = """
:root{color-scheme:light}body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}figure{margin:1rem 0}figcaption{color:#444;font-size:.92rem}
svg{max-width:100%;height:auto}table{border-collapse:collapse;font-size:.88rem;margin:.6rem 0;display:block;overflow-x:auto}
td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}th{font-weight:600}
td:first-child,th:first-child{text-align:left}td.text{text-align:left;white-space:normal;font-family:ui-monospace,monospace;font-size:.82rem}
.note{color:#444}code{background:#f3f3f3;padding:.05rem .25rem}
"""


def write(root: Path, out: Path | None = None) -> Path:
    """Write figures/*.svg and report.html into `out` (default: `root`); returns the report's path.

    Raises:
      RunError: the directory is not that of a run whose fits are done.
    """
    if not (root / "coefficients.json").exists() or not (root / "stages.json").exists():
        raise RunError(f"{root} is not a run with finished fits: give a directory that `rmo run` filled")
    summary, gold = read_json(root / "coefficients.json"), read_json(root / "gold.json")
    stages, e = read_json(root / "stages.json"), read_json(root / "experiment.json")
    curves = from_rows(read_csv(root / "curves.csv"), str(root / "curves.csv"))
    where = {row["stage"]: root / row["path"] for row in stages}
    proxies = [read_json(path / "info.json") for name, path in where.items() if name.startswith("proxies/")]
    reads = ppo_reads(where)
    figures = {f"{method}": plots.curves(curves, summary, method) for method in summary}
    figures |= {"coefficients": plots.coefficients(summary), "reward_models": plots.reward_models(proxies)}
    figures["proxy_against_gold"] = plots.proxy_against_gold(curves)
    if reads:
        figures["ppo_diagnostics"] = plots.ppo_diagnostics(reads)
    out = out or root
    drawn = {name: plots.svg(figure) for name, figure in figures.items()}
    for name, text in drawn.items():
        write_text(out / "figures" / f"{name}.svg", text)

    show = lambda name, caption: f"<figure>{inline(drawn[name])}<figcaption>{caption}</figcaption></figure>"  # noqa: E731
    body = [f"<h1>Reward-model overoptimization: {html.escape(e['name'])}</h1>", summary_sentence(curves)]
    kl_coef = e["ppo"]["kl_coef"]
    penalty = f"with a KL penalty of {kl_coef:g} per token" if kl_coef else "without a KL penalty"
    captions = {
        "bon": "Best-of-n. Solid: gold, mean over RM seeds (dots: each seed). Dashed: the proxy being optimised. "
        "Dotted, with its bootstrap band: <code>R = d(α − β d)</code>, d = √KL. KL is the bound log n − (n−1)/n.",
        "ppo": f"PPO {penalty}, read on held-out prompts. Dotted, with its band: <code>R = d(α − β log d)</code>, "
        "one α for all sizes. KL is exact: full vocabulary, summed over response tokens.",
    }
    for method in summary:
        body += [f"<h2>Gold and proxy against KL: {plots.METHOD_NAMES[method]}</h2>", show(method, captions[method])]
        body += [coefficient_table(summary[method]), rivals_table(summary[method])]
    body += ["<h2>Coefficients against RM size</h2>", show("coefficients", "Points with bootstrap intervals over prompts and "
             "RM seeds; line: least squares on log10(parameters).") + trend_text(summary)]  # fmt: skip
    body += ["<h2>Reward models</h2>", show("reward_models", "On comparisons of held-out prompts; dots are seeds.")]
    body += ["<h2>Proxy against gold</h2>", show("proxy_against_gold", "Each line is one run; dashed: proxy = gold.")]
    body += ["<h2>Is gold a fair judge?</h2>", gold_section(e, gold, where)]
    if reads:
        body += ["<h2>PPO diagnostics</h2>", show("ppo_diagnostics", "Read on held-out prompts (KL, entropy, length) or from the "
                 "last iteration before the read. KL efficiency below 1: PPO spends more KL than best-of-n for the same proxy score.")]  # fmt: skip
    body += ["<h2>What the policies write</h2>", sample_tables(root, where, e)]
    body += ["<h2>What this run cost</h2>", cost_table(stages, where)]
    text = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    text += f"<title>rmo: {html.escape(e['name'])}</title><style>{CSS}</style><body>{''.join(body)}</body></html>\n"
    write_text(out / "report.html", text)
    return out / "report.html"


def inline(svg: str) -> str:
    """The <svg> element without the XML prologue, which HTML does not take."""
    return svg[svg.index("<svg") :]


def table(head: list[str], rows: list[list[Any]], text: tuple[int, ...] = ()) -> str:
    """HTML table; columns in `text` are prose."""
    cell = lambda i, x: f"<td{' class=text' if i in text else ''}>{html.escape(number(x))}</td>"  # noqa: E731
    lines = ["<tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + "</tr>"]
    lines += ["<tr>" + "".join(cell(i, x) for i, x in enumerate(row)) + "</tr>" for row in rows]
    return "<table>" + "".join(lines) + "</table>"


def number(x: Any) -> str:
    """Three decimals for floats, separators for integers, [low, high] for intervals."""
    if x is None:
        return "∞"  # JSON has no infinity: a peak that is never reached
    if isinstance(x, float):
        return "∞" if np.isposinf(x) else "–" if np.isnan(x) else f"{x:,.3f}" if abs(x) < 1000 else f"{x:,.0f}"
    if isinstance(x, int) and not isinstance(x, bool):
        return f"{x:,}"
    if isinstance(x, list):
        return "[" + ", ".join(number(v) for v in x) + "]"
    return str(x)


def summary_sentence(curves: list[Curve]) -> str:
    """What happened to the smallest and the largest proxy, in words computed from the curves."""
    parts = []
    for method in METHODS:
        groups = fit.group(curves, method)
        for place, group in [("smallest", groups[0]), ("largest", groups[-1])] if groups else []:
            peaks = [
                (c.kl[i := int(np.argmax(c.gold))], c.gold[i], c.gold[-1], c.kl[-1], c.proxy[-1]) for c in group.curves
            ]
            kl, top, last, end, proxy = np.mean(peaks, axis=0)
            # Seeds share their prompts, so their paired errors are not averaged down.
            errors = [c.fall_se[-1] for c in group.curves if c.fall_se is not None]
            error = float(np.mean(errors)) if errors else np.inf
            verdict = "fell" if top - last > 2 * error else "did not measurably fall"
            fate = f"and {verdict}, to {last:.2f} at KL {end:.1f} (a difference of {last - top:+.2f} ± {error:.2f})"
            parts.append(f"{plots.METHOD_NAMES[method]} against the {place} proxy ({plots.size(group.params)} parameters): gold "
                         f"peaked at {top:.2f} at KL {kl:.1f} {fate}, while the proxy said {proxy:.2f}")  # fmt: skip
    return (
        "<p>"
        + ".<br>".join(p[0].upper() + p[1:] for p in parts)
        + ". Scores are gold standard deviations above the initial policy; means over RM seeds.</p>"
    )


def coefficient_table(part: dict[str, Any]) -> str:
    """Coefficients, fit quality and peaks per group."""
    head = [
        "RM",
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
         g["peak_gold"], g["peak_gold_interval"], g["peak_kl"], g["peak_kl_interval"], g["measured_peak_gold"], g["measured_peak_kl"]]
        for g in part["groups"]
    ]  # fmt: skip
    left_out = f" Points with √KL below {part['min_d']:g} are left out of the fit." if part["min_d"] else ""
    over = "; ".join(dict.fromkeys(g["interval_from"] for g in part["groups"]))
    note = f"<p class=note>{part['level']:.0%} intervals: {part['bootstrap']:,} bootstrap draws over {over}.{left_out} "
    note += "“Peak measured” is the mean over seeds of the highest point, so noise lifts it a little.</p>"
    return table(head, rows) + note


def rivals_table(part: dict[str, Any]) -> str:
    """Rival forms by held-out error: fitted on the lower half of the KL range, scored on the upper."""
    ranked = sorted(part["extrapolation"].items(), key=lambda item: item[1]["held_out_rmse"] or np.inf)
    rows = [
        [
            name + (" (the paper's)" if name == part["form"] else ""),
            x["held_out_rmse"],
            x["held_out_spread"],
            x["scored"],
        ]
        for name, x in ranked
    ]
    note = "<p class=note>Extrapolation: each form fitted per RM on the lower half of its KL range, scored on the rest.</p>"
    return table(["form", "held-out RMSE", "spread of the held-out gold", "RMs"], rows) + note


def trend_text(summary: dict[str, Any]) -> str:
    """Slopes per decade of RM parameters."""
    rows = [
        [f"{'αβ'[name == 'beta']}, {plots.METHOD_NAMES[method]}", trend["per_decade"], trend["interval"]]
        for method, part in summary.items() for name, trend in part["trends"].items()
    ]  # fmt: skip
    return table(["coefficient", "change per decade of parameters", "interval"], rows) if rows else ""


def side(v: dict[str, float]) -> str:
    """Where a mean lies against 0, two standard errors being the measure."""
    low, high = v["gold_mean"] - 2 * v["gold_se"], v["gold_mean"] + 2 * v["gold_se"]
    return "below" if high < 0 else "above" if low > 0 else "not measurably off"


def gold_section(e: dict[str, Any], gold: dict[str, Any], where: dict[str, Path]) -> str:
    """Gold is the truth by definition; here is how it relates to the annotator it was trained on, and to broken text."""
    info = read_json(where["gold"] / "info.json")
    broken = {k: v for k, v in gold.items() if k.startswith(("garbled", "collapsed"))}
    verdict = " ".join(
        f"{k.capitalize()} text scores {v['gold_mean']:+.2f} ± {v['gold_se']:.2f}, "
        f"{side(v)} the initial policy's mean of 0." for k, v in broken.items()
    )  # fmt: skip
    kind = (
        "a network regressed on the world's annotator"
        if e["gold"]["kind"] == "annotator"
        else "a random teacher that never saw the annotator"
    )
    held = info["held_out_broad_text"]
    text = f"<p>Gold is {kind} ({info['params']['non_embedding']:,} parameters without embeddings). On held-out broad text its rank " \
           f"correlation with the annotator is {held['rank_correlation']:.3f}. It is the truth of this run by definition. {verdict}</p>"  # fmt: skip
    rows = [
        [k, v["texts"], v["gold_mean"], v["gold_se"], v["rank_correlation"], v["annotator_mean"], v["length"]]
        for k, v in gold.items()
    ]
    return text + table(
        ["texts", "how many", "gold mean", "s.e.", "rank correlation with annotator", "annotator mean", "tokens"], rows
    )


def ppo_reads(where: dict[str, Path]) -> dict[str, list[dict[str, float]]]:
    """The rows of every PPO run's reads.csv, by proxy."""
    out = {}
    for name, path in where.items():
        if name.startswith("ppo/") and (path / "reads.csv").exists():
            rows = [{k: float(v) if v else np.nan for k, v in row.items()} for row in read_csv(path / "reads.csv")]
            out[name.removeprefix("ppo/")] = rows
    return out


def sample_tables(root: Path, where: dict[str, Path], e: dict[str, Any], prompts_shown: int = 3) -> str:
    """Decoded text for the smallest proxy: at n=1, at the gold peak and past it; and the same along PPO."""
    tokenizer = data.load_tokenizer(where["sft"] / "tokenizer")
    prompts = read_npz(where["samples"] / "prompts.npz")
    out = []
    names = [name.removeprefix("bon/") for name in where if name.startswith("bon/")]
    names.sort(key=lambda name: read_json(where[f"bon/{name}"] / "info.json")["params"]["non_embedding"])
    for name in dict.fromkeys([names[0], names[-1]]):
        rows = []
        curve, shown = read_npz(where[f"bon/{name}"] / "curve.npz"), read_npz(where[f"bon/{name}"] / "winners.npz")
        gold_K = curve["gold"][0].mean(-1)
        picks = {"n=1": 0, "peak": int(gold_K.argmax()), "end": len(gold_K) - 1}
        for q in range(min(prompts_shown, len(prompts["tokens"]))):
            draws = read_npz(where["samples"] / "draws" / f"{q:05d}.npz")
            for label, k in picks.items():
                i = shown["index"][0, k, q]
                text = data.decode(tokenizer, draws["tokens"][i], draws["mask"][i])
                prompt = data.decode(tokenizer, prompts["tokens"][q], prompts["mask"][q])
                rows.append([prompt, f"best of {shown['n'][k]} ({label})", float(curve["kl"][k]), text])
            if f"ppo/{name}" in where:
                run = read_npz(where[f"ppo/{name}"] / "curve.npz")
                keep = np.flatnonzero(run["fresh"][:, 0])
                gold = run["gold"][keep, 0].mean(-1)
                for label, k in {"peak": keep[gold.argmax()], "end": keep[-1]}.items():
                    text = data.decode(tokenizer, run["tokens"][k, 0, q], run["mask"][k, 0, q])
                    rows.append(
                        [prompt, f"PPO iteration {run['step'][k, 0]} ({label})", float(run["kl"][k, 0].mean()), text]
                    )
        out.append(
            f"<h3>Proxy {html.escape(name)}</h3>" + table(["prompt", "policy", "KL", "response"], rows, text=(0, 3))
        )
    note = (
        "<p class=note>One sample each, drawn, not picked. A text's own score says little: only averages are clean.</p>"
    )
    return "".join(out) + note


def cost_table(stages: list[dict[str, Any]], where: dict[str, Path]) -> str:
    """Seconds per stage."""
    total = sum(row["seconds"] or 0 for row in stages)
    rows = [
        [row["stage"], row["seconds"], f"{row['seconds'] / total:.0%}"] for row in stages if row["seconds"] is not None
    ]
    versions = read_json(where["sft"] / "cost.json")
    text = f"<p class=note>Python {versions['python']}, jax {versions['jax']}, {versions['backend']}. Seconds of the call that "
    return table(["stage", "seconds", "share"], [*rows, ["all", float(total), ""]]) + text + "finished each stage.</p>"
