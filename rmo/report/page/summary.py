"""What happened in a run, in a few sentences."""

import html
from collections.abc import Sequence

from rmo.analysis import fitting
from rmo.analysis.curve import Curve
from rmo.analysis.fitting import Group
from rmo.methods import method as methods
from rmo.methods.method import Method
from rmo.methods.paper import BEST_OF_N, PPO
from rmo.report.figures.style import has_proxy, mean_curve, size
from rmo.runtime.types import Row

RISES_AND_FALLS = {BEST_OF_N: "C1a", PPO: "C1b"}  # the claim that says so of the smallest RM


def summary_sentence(curves: Sequence[Curve], claims: list[Row], unit: str = "") -> str:
    """What happened to the smallest and the largest proxy, in words computed from the curves and, where they were
    judged, claims C1a and C1b. `unit` is a sentence that says what scores are counted in."""
    parts, several = [], False
    curves = [curve for curve in curves if curve.id.against_rm]
    for method in methods.every():
        groups = fitting.group(curves, method.name)
        several = several or any(len(g.curves) > 1 for g in groups)
        main = fitting.families(groups)[0] if groups else []
        if len(main) > 1:
            parts.append(what_happened(method, main[0], "smallest ") + verdict(method, claims))
            parts.append(what_happened(method, main[-1], "largest "))
        else:
            parts += [what_happened(method, group) for group in main]
    text = ".<br>".join(part[0].upper() + part[1:] for part in parts)
    means = " Means over RM seeds." if several else ""
    return f"<p>{text}.{unit}{means}</p>"


def what_happened(method: Method, group: Group, place: str = "") -> str:
    """Where gold was highest and where it ended, of one group's mean curve."""
    kl, gold = mean_curve(group, "gold")
    top = int(gold.argmax())
    text = method.title
    if place or group.params:
        text += f" against the {place}proxy"
    if group.params:
        text += f" ({size(group.params)} parameters)"
    end = f"{gold[-1]:.2f} at KL {kl[-1]:.1f}"
    if top == len(gold) - 1:
        text += f": gold was still highest at the end, {end}"
    else:
        text += f": gold was highest, {gold[top]:.2f}, at KL {kl[top]:.1f} and ended at {end}"
    if has_proxy(group):
        text += f", where the proxy said {mean_curve(group, 'proxy')[1][-1]:.2f}"
    return text


def verdict(method: Method, claims: list[Row]) -> str:
    """Whether the paper's claim that gold rises and falls holds, in brackets, where it was judged."""
    name = RISES_AND_FALLS.get(method.name)
    found = [c["verdict"] for c in claims if c["claim"] == name]
    return f" (that it rises and falls: {html.escape(found[0])})" if found else ""
