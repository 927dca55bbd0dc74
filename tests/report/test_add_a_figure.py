"""A figure in a file of its own reaches the report: the recipe of rmo/report/README.md, followed as written."""

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from rmo.analysis.curve_id import CurveId
from rmo.analysis.sweeps import Missing
from rmo.cli import plugins
from rmo.methods import method as methods
from rmo.methods.method import Method, find
from rmo.report import run_report
from rmo.report.figures import beyond, drawing, style
from rmo.report.run_report import beyond_section, draw_all, draw_diagnostics, other_methods, save_all
from tests.helpers.curves import DATA, SIZES, SMALL, files_of, made_up

ROOT = Path(__file__).parents[2]
README = ROOT / "rmo" / "report" / "README.md"


def main_sweep(*names: str) -> list[CurveId]:
    return [
        CurveId(name, params, DATA[-1], policy_params=SMALL, seed=seed)
        for name in names
        for params in SIZES
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def small():
    """A run with the main sweep of the paper's two methods alone."""
    return files_of([made_up(id) for id in main_sweep("bon", "ppo")])


@pytest.fixture
def toy(monkeypatch):
    """A third method."""
    methods.every()
    method = replace(find("bon"), name="toy", title="a toy of a method", short="toy", axis="step", kl="exact", rank=50)
    monkeypatch.setitem(methods._METHODS, "toy", method)
    return method


def test_the_readmes_recipe(small, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    file = tmp_path / "last_gap.py"
    file.write_text(textwrap.dedent(code))
    monkeypatch.setattr(drawing, "_DRAWINGS", dict(drawing._DRAWINGS))
    monkeypatch.setenv("RMO_PLUGINS", str(file))
    monkeypatch.delitem(sys.modules, "rmo_plugin_last_gap", raising=False)
    plugins.load()

    (ours,) = [d for d in drawing.drawings() if d.name == "last_gap"]
    assert ours.title == "Gap at the end"
    assert ours.caption == "Proxy minus gold at the last point of every method's mean curve, by RM size."

    drawn, lacking = draw_all(small)
    monkeypatch.setattr(run_report.texts, "PointTexts", lambda run: {})
    shown = save_all({"last_gap": drawn["last_gap"]}, tmp_path, run=None)
    assert (tmp_path / "figures" / "last_gap.svg").read_text().count("RL (PPO)") == 1
    section = "".join(beyond_section(shown, lacking, []))
    assert section.startswith("<h2 id=beyond>Beyond the paper</h2>")
    assert "<h3 id=last_gap>Gap at the end</h3><figure><svg" in section
    assert "Diversity of the comparisons: no RMs whose recipe sets prompts" in section


def test_what_a_figure_lacks_is_listed(small, monkeypatch):
    monkeypatch.setattr(drawing, "_DRAWINGS", dict(drawing._DRAWINGS))

    @drawing.drawing
    def rounds(f: drawing.Files) -> Figure:
        """Rounds.

        Gold after several rounds of new comparisons."""
        raise Missing("one round only")

    drawn, lacking = draw_all(small)
    assert "rounds" not in drawn
    assert "<li>Rounds: one round only</li>" in "".join(beyond_section({}, lacking, []))


def test_docstrings_reach_the_page_without_docstrings():
    """Under -OO Python drops them, and titles and captions come from the source."""
    code = "from rmo.report.figures.drawing import drawings\n"
    code += "import sys\n"
    code += "sys.exit(0 if drawings() and all(d.title and d.caption for d in drawings()) else 1)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-OO", "-c", code], check=True, env=environment, cwd=ROOT, timeout=300)


def test_every_method_stands_on_the_same_axes(small, toy):
    files = files_of([*small.curves, *(made_up(id) for id in main_sweep("toy"))])
    figure = beyond.every_method(files)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["RM of 500 parameters", "RM of 100k parameters"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["best-of-n, KL is an upper bound", "RL (PPO)", "a toy of a method", "gold", "proxy"]
    for axis in figure.axes:
        gold = [line for line in axis.get_lines() if line.get_linestyle() == "-" and len(line.get_xdata()) > 2]
        proxy = [line for line in axis.get_lines() if line.get_linestyle() == "--"]
        assert len({line.get_color() for line in gold}) == len(gold) == 3
        assert [line.get_color() for line in proxy] == [line.get_color() for line in gold]
        x = axis.transData.transform([[0.0, 0], [9, 0], [36, 0]])[:, 0]
        assert x[2] - x[0] == pytest.approx(2 * (x[1] - x[0]))  # square-root scale
    assert "<svg" in style.svg(figure)


def test_every_method_says_what_it_lacks(small):
    one = replace(small, curves=[c for c in small.curves if c.method == "bon"])
    with pytest.raises(Missing, match="one method only"):
        beyond.every_method(one)
    apart = [c for c in small.curves if (c.method == "bon") == (c.id.rm_params < 5000)]
    with pytest.raises(Missing, match="no RM that several methods were run against"):
        beyond.every_method(replace(small, curves=apart))


def test_a_method_of_ones_own_has_its_curves_in_the_report(small, toy: Method, tmp_path, monkeypatch):
    files = files_of([*small.curves, *(made_up(id) for id in main_sweep("toy"))])
    drawn, _ = draw_all(files)
    monkeypatch.setattr(run_report.texts, "PointTexts", lambda run: {})
    shown = save_all({"curves_toy": drawn["curves_toy"]}, tmp_path, run=None)
    section = "".join(other_methods(files, shown))
    assert "<h3 id=curves_toy>a toy of a method</h3>" in section
    assert "against KL with d(a - b d) fitted to gold." in section
    assert "step 21" in section  # what a tooltip says of its last point


def test_diagnostics_have_an_axis_for_each(small):
    figure = draw_diagnostics(small, find("ppo"))
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 2 + sum(d.drawn for d in find("ppo").diagnostics)
    assert shown[0].get_xlabel() == "PPO iteration"
    assert len(shown[0].get_legend().get_texts()) == len(SIZES)
