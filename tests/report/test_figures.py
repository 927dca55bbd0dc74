"""Every figure is drawn from a made-up run with everything, and says what it lacks in one with little."""

import re
from dataclasses import replace

import numpy as np
import pytest

from rmo.analysis import scaling
from rmo.analysis.fitting import group
from rmo.analysis.sweeps import Missing
from rmo.claims.claim import claims, judge
from rmo.claims.evidence import Evidence
from rmo.methods.method import find
from rmo.report import run_report
from rmo.report.figures import (
    anatomy,
    appendix,
    direct,
    ensembles,
    goodhart_kinds,
    inference,
    paper,
    regularisers,
    style,
)
from rmo.report.figures.drawing import drawings
from rmo.report.page import interactive, tables, verdicts
from rmo.report.run_report import draw_all, draw_diagnostics, in_order
from tests.helpers.curves import DATA, PROMPTS, SIZES, SMALL, whole_run

OF_OTHER_METHODS = (anatomy, direct, ensembles, goodhart_kinds, inference, regularisers)


@pytest.fixture(scope="module")
def files():
    return whole_run()


def test_every_figure_of_the_paper_has_a_function():
    names = [d.name for d in in_order(paper.__name__, appendix.__name__)]
    whole = {"fig2", *(f"fig{n}" for n in (5, 6, 8, *range(9, 26)))}
    halves = {f"fig{n}{half}" for n in (1, 4, 7, 26) for half in "ab"} | {"fig3a", "fig3b", "fig3c"}
    assert set(names) == whole | halves
    numbers = [int(re.sub(r"\D", "", name)) for name in names]
    assert numbers == sorted(numbers)  # in the paper's order
    for d in drawings():
        assert d.title
        assert d.caption


def test_all_are_drawn_from_a_whole_run(files):
    drawn, lacking = draw_all(files)
    # Those of other methods, whose runs are made in tests/claims, this run may lack.
    others = {d.name for module in OF_OTHER_METHODS for d in in_order(module.__name__)}
    assert set(lacking) <= others
    curves = {"curves_rounds"}  # of a method beside the paper's
    assert set(drawn) == {d.name for d in drawings()} - set(lacking) | curves
    for name, picture in drawn.items():
        text = style.svg(picture)
        assert text.count("<path") > 3, name
        assert "NaN" not in text.replace("nan", "NaN"), name
    assert style.svg(drawn["fig1a"]) == style.svg(paper.fig1a(files))  # the same data, the same bytes
    assert style.svg(draw_diagnostics(files, find("ppo"))).count("<path") > 10


def test_axes_are_the_papers(files):
    axis = style.draw_overlay(paper.fig1b(files)).axes[0]
    assert "KL distance between RL tuned policy and initial policy" in axis.get_xlabel()
    x = axis.transData.transform([[0.0, 0], [9, 0], [36, 0]])[:, 0]
    assert x[2] - x[0] == pytest.approx(2 * (x[1] - x[0]))  # square-root scale
    colours = {
        line.get_color() for line in axis.get_lines() if line.get_linestyle() == "--" and len(line.get_xdata()) > 2
    }
    assert len(colours) == len(SIZES)
    labels = style.draw_overlay(paper.fig4b(files)).axes[0].get_legend_handles_labels()[1]
    assert labels == [f"{c:,}" for c in DATA[1:]]


def test_policies_start_where_they_start(files):
    lifted, level = (style.draw_overlay(fig(files)).axes[0] for fig in (paper.fig7b, appendix.fig23))
    first = lambda axis: sorted(line.get_ydata()[0] for line in axis.get_lines() if line.get_label() in ("20k", "90k"))
    assert first(lifted) == pytest.approx([0.0, 0.3], abs=0.01)
    assert first(level) == pytest.approx([0.0, 0.0], abs=0.01)


def test_a_small_run_says_what_it_lacks(files):
    main = [c for c in files.curves if (c.id.rm_comparisons, c.id.policy_params) == (DATA[-1], SMALL)]
    plain = [c for c in main if not (c.id.rm_recipe or c.id.rm_combined or c.id.settings)]
    rows = [r for r in files.reward_models if r["rm_comparisons"] == DATA[-1]]
    summary = scaling.summarise(plain, draws=20, rank_draws=5)
    few = replace(files, curves=plain, summary=summary, reward_models=rows, starts={SMALL: 0.0})
    drawn, lacking = draw_all(few)
    assert {"fig1a", "fig1b", "fig3c", "fig8", "fig11", "fig12", "fig16", "fig20", "fig26a"} <= set(drawn)
    assert lacking["fig9"] == "no KL penalties"
    assert {"fig4a", "fig4b", "fig6", "fig7a", "fig13", "fig22"} <= set(lacking)
    with pytest.raises(Missing, match="no ppo curves"):
        paper.fig1b(replace(few, curves=[c for c in plain if c.method == "bon"]))


def test_a_run_in_which_nothing_turns_has_a_report(files):
    """No best-of-n fit bends down, so none has a peak to compare with."""
    rising = [replace(c, gold=c.d, gold_KQ=None) for c in files.curves if c.method == "bon"]
    summary = scaling.summarise(rising, draws=20, rank_draws=5)
    for row in summary["bon"]["groups"]:
        row["peak_gold"] = None  # as read_json reads infinity
    few = replace(files, curves=rising, summary=summary, diagnostics={})
    assert draw_all(few)[1]["fig12"] == "no best-of-n fit that turns"


def test_a_method_that_could_not_be_fitted_is_named_in_the_report(files):
    """Its curves are drawn, its fits are not, and nothing says that a coefficient is 0."""
    short = [replace(c, kl=c.kl / 1e3) if c.method == "ppo" else c for c in files.curves if not c.id.settings]
    few = replace(files, curves=short, summary=scaling.summarise(short, draws=20, rank_draws=5))
    drawn, lacking = draw_all(few)
    assert "fig1b" in drawn
    assert lacking["fig3c"] == lacking["fig26b"] == "no ppo curve with enough points to be fitted"
    assert len(drawn["rival_forms"].axes) == 1  # best-of-n's
    (part,) = run_report.fit_tables(few.summary["ppo"])
    assert part.startswith("<p class=note>Not fitted, for want of points: 500 parameters, 36,000 comparisons")
    evidence = Evidence([c for c in short if c.id.against_rm], draws=20)
    rows = {c.name: judge(c, evidence) for c in claims() if c.name in ("C2b", "C3c")}
    assert all(row["why"].startswith("this run has a ppo curve with too few points") for row in rows.values())


def test_tables(files):
    part = files.summary["ppo"]
    assert part["main"] == len(SIZES)
    page = tables.coefficient_table(part) + tables.rivals_table(part) + tables.lower_end_table(part)
    page += tables.laws_table(files.summary) + tables.trend_text(files.summary) + tables.paper_table(files.summary)
    assert page.count("<table>") == 6
    assert "nan" not in page
    rows = [
        {"claim": "C1", "text": "a < b", "measured": "x", "statistic": 1.0, "interval": [0.5, 2.0], "threshold": [0, None],
         "verdict": "holds", "why": "", "n_runs": 3, "figure": "fig1a"},
        {"claim": "C2", "text": "t", "measured": "y", "statistic": None, "interval": None, "threshold": [-0.1, 0.1],
         "verdict": "undecided", "why": "this run has no x", "n_runs": 0, "figure": "none"},
        {"claim": "C3", "text": "u", "measured": "z", "statistic": 0.0, "interval": [-0.5, 0.5], "threshold": [-0.1, 0.1],
         "verdict": "undecided", "why": "2 RM seeds; a verdict needs 3", "n_runs": 2, "figure": "none"},
    ]  # fmt: skip
    text = verdicts.claims_table(rows, {"fig1a"})
    assert "<a href='#fig1a'>" in text
    assert "a &lt; b" in text
    assert "above 0" in text
    assert "-0.1 to 0.1" in text
    assert "<summary>1 more, for which this run has no data</summary><ul><li>C2. t: this run has no x</li>" in text
    assert "no x" in text


def test_groups_are_told_apart(files):
    groups = group(files.curves, "ppo")
    assert len({g.label(groups) for g in groups}) == len(groups)
    assert style.LABELS["kl_coef"](groups[0]) == "0"
    assert groups[0].curves[0].gold_KQ.shape[1] == PROMPTS
    assert files.paths.of(groups[0].id)


@pytest.mark.parametrize(
    ("lines", "title", "shown"), [(12, "sizes", 12), (13, "sizes (10 of 13)", 10), (40, "sizes (10 of 40)", 10)]
)
def test_of_very_many_colours_a_legend_shows_some(lines, title, shown):
    _, (axis,) = style.panels()
    for i in range(lines):
        axis.plot([0, 1], [i, i], label=str(i))
    style.legend(axis, "sizes", [style.line_kind("gold")])
    legend = axis.get_legend()
    labels = [text.get_text() for text in legend.get_texts()]
    assert (legend.get_title().get_text(), len(labels), labels[-1]) == (title, shown + 1, "gold")
    assert (labels[0], labels[-2]) == ("0", str(lines - 1))
    assert labels[:-1] == sorted(labels[:-1], key=int)


def test_a_legend_stays_where_it_is_best_once_all_is_placed():
    """And where it was told to be, beside the axes."""
    figure, (left, right) = style.panels(2)
    for axis in (left, right):
        axis.plot([0, 1, 2], [2, 1, 0], label="a line from the top left")
    left.legend()
    right.legend(bbox_to_anchor=(1.05, 1), loc="upper left")
    figure.draw_without_rendering()
    before = [axis.get_legend().get_window_extent().bounds for axis in (left, right)]
    style.lay_out(figure)
    dots = 72 / 100  # of SVG by those before
    for axis, bounds in zip((left, right), before, strict=True):
        np.testing.assert_allclose(axis.get_legend().get_window_extent().bounds, np.multiply(bounds, dots), atol=4)
    assert left.get_legend().get_window_extent().x0 > left.bbox.x0 + left.bbox.width / 3  # to the right of the line


def test_plotly_knows_every_setting(files):
    """Its own classes, which check them, are not used to draw."""
    import plotly.graph_objects as go

    plot, overlay = interactive.Plot(), draw_all(files)[0]["fig1a"]
    interactive.add_curve(plot, overlay, overlay.groups[0], "rgb(1, 2, 3)")
    interactive.add_fit(plot, overlay, overlay.groups[0], "rgb(1, 2, 3)")
    interactive.add_seeds(plot, overlay, overlay.groups[0], "rgb(1, 2, 3)", {})
    assert len(go.Figure({"data": plot.traces, "layout": plot.layout(overlay)}).data) == len(plot.traces) >= 4
