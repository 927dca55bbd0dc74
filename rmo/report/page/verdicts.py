"""Verdicts on the paper's claims, as HTML."""

import html
from collections.abc import Container

from rmo.claims.claim import of_the_paper
from rmo.report.page.tables import number
from rmo.runtime.types import Row


def region(low: float | None, high: float | None) -> str:
    """Where a statistic must lie for its claim to hold."""
    if high is None:
        return f"above {low:.3g}"
    if low is None:
        return f"below {high:.3g}"
    return f"{low:g} to {high:g}"


def count_verdicts(claims: list[Row]) -> str:
    """How many claims of the paper hold, and how many of others where there are any."""
    ours, others = ([c for c in claims if of_the_paper(c["claim"]) == own] for own in (True, False))
    sentences = [counted(ours, "statements"), counted(others, "statements of other papers") if others else ""]
    return " ".join(filter(None, sentences))


def counted(claims: list[Row], what: str) -> str:
    """A sentence with the numbers of verdicts."""
    of = {v: sum(c["verdict"] == v for c in claims) for v in ("holds", "fails", "undecided")}
    return f"Of {len(claims)} {what} {of['holds']} hold here, {of['fails']} fail and {of['undecided']} are undecided."


def claims_intro(claims: list[Row], level: float) -> str:
    """How many claims hold, and what a verdict means; `level` is that of the intervals."""
    return (
        f"<p>{count_verdicts(claims)} A statement holds where the whole {level:.0%} interval of its statistic (over "
        "prompts and RM seeds) lies where the paper's wording puts it, fails where none of it does. Thresholds are "
        "fixed in the code beside the wording. How many seeds would decide a statement is a guess: did its statistic "
        "stay where it is. What holds or fails here says something of this small world, not of the paper's.</p>"
    )


def claims_table(claims: list[Row], drawn: Container[str]) -> str:
    """Every claim with its verdict; figures that exist are linked. Those that cannot be measured here are folded."""
    measured = [claim_row(c, c["figure"] in drawn) for c in claims if c["statistic"] is not None]
    missing = [f"{c['claim']}. {c['text']}: {c['why']}" for c in claims if c["statistic"] is None]
    out = f"<table>{CLAIMS_HEAD}{''.join(measured)}</table>" if measured else ""
    if missing:
        items = "".join(f"<li>{html.escape(item)}</li>" for item in missing)
        summary = f"{len(missing)} more, for which this run has no data"
        out += f"<details><summary>{summary}</summary><ul>{items}</ul></details>"
    return out


CLAIMS_HEAD = (
    "<tr><th></th><th class=text>claim, and what is measured</th><th class=text>verdict</th><th>statistic</th>"
    "<th>interval</th><th>holds if</th><th>runs</th><th>figure</th></tr>"
)


def claim_row(c: Row, drawn: bool) -> str:
    figure, verdict = html.escape(str(c["figure"])), html.escape(str(c["verdict"]))
    link = f"<a href='#{figure}'>{figure}</a>" if drawn else figure
    why = f"<br><span class=note>{html.escape(c['why'])}</span>" if c["why"] else ""
    measured = f"<br><span class=note>{html.escape(c['measured'])}</span>"
    cells = [
        f"<td>{html.escape(str(c['claim']))}</td><td class=prose>{html.escape(c['text'])}{measured}</td>",
        f"<td class='verdict {verdict}'>{verdict}{why}</td><td>{html.escape(number(c['statistic']))}</td>",
        f"<td>{html.escape(number(c['interval'] or None))}</td><td>{region(*c['threshold'])}</td>",
        f"<td>{html.escape(str(c['n_runs']))}</td><td>{link}</td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def readings(claims: list[Row], figure: str) -> str:
    """The verdicts that rest on one figure, a line each."""

    def line(c: Row) -> str:
        verdict = html.escape(str(c["verdict"]))
        said = html.escape(f"{c['claim']}. {c['text']}")
        measured = html.escape(f"{number(c['statistic'])} {number(c['interval'])}")
        return f"<p class=reading>{said}: <b class='{verdict}'>{verdict}</b> ({measured})</p>"

    return "".join(line(c) for c in claims if c["figure"] == figure and c["statistic"] is not None)
