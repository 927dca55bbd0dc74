"""The report of a finished smoke run: in a browser, of several runs, from files alone, with what plugins add."""

import html
import re
import shutil
import sys

import pytest

from rmo.artifacts.run_files import RunFiles
from rmo.artifacts.stages import Optimised, Samples, Stage
from rmo.checkpoints import tokenizers
from rmo.cli import plugins
from rmo.report import compare, run_report
from rmo.report.figures import drawing
from rmo.report.page import costs, texts
from rmo.runtime import files
from rmo.runtime.files import RunError, read_csv, read_json
from tests.helpers import browser
from tests.helpers.smoke import copied, resealed


@pytest.mark.parametrize("size", browser.SIZES)
def test_the_page_in_a_browser(smoke, size):
    """Tooltips say which RM, n, KL, scores and text; the axis can be changed; claims lead to their figures; the page fits
    its window, asks for nothing and has no error."""
    drawn = [r for r in read_csv(smoke / "curves.csv") if r["method"] == "bon"]
    rows = [r for r in drawn if (r["rm_params"], r["seed"]) == ("801", "0")]
    apart = [
        [abs(float(o["gold"]) - float(r["gold"])) for o in drawn if o["kl"] == r["kl"] and o is not r] for r in rows
    ]
    k = max(range(len(rows)), key=lambda k: min(apart[k]))  # the point that is farthest from others at its n
    with browser.opened(smoke / "report.html", size) as page:
        markers = page.evaluate("document.getElementById('fig1a-plot').data.findIndex(t => t.mode == 'markers')")
        # Points of other RMs may lie on this one: they are hidden while it is read.
        shown = "on => Plotly.restyle('fig1a-plot', {visible: on}, others)"
        others = f"const others = [...document.getElementById('fig1a-plot').data.keys()].filter(i => i != {markers})"
        page.evaluate(f"{{{others}; ({shown})(false)}}")
        said = browser.hover(page, "fig1a-plot", markers, k)
        page.evaluate(f"{{{others}; ({shown})(true)}}")
        want = rows[k]
        assert f"n {int(want['step_or_n']):,}" in said
        assert f"KL {float(want['kl']):.3g} nats" in said
        assert f"gold {float(want['gold']):.3f}, proxy {float(want['proxy']):.3f}" in said
        draws = Samples(next(smoke.glob("samples-*"))).draws(0)
        winner = Optimised(next(smoke.glob("bon/w8x1-main-*"))).record.draw[0, k, 0]
        tokenizer = tokenizers.load_tokenizer(next(smoke.glob("sft-*/tokenizer")))
        text = tokenizers.decode(tokenizer, draws.tokens[winner], draws.mask[winner])
        assert "one response to the first prompt" in said
        assert text.split()[0] in said
        assert text.split()[-1] in said

        x = f"document.getElementById('fig1a-plot').data[{markers}].x[{k}]"
        root = page.evaluate(x)
        page.locator("#fig1a-plot .updatemenu-button", has_text="KL").last.click()
        page.wait_for_function(f"Math.abs({x} - {root**2}) < 1e-2")
        assert page.evaluate("document.getElementById('fig1a-plot').layout.xaxis.title.text") == "KL, nats"

        link = page.locator("#claims ~ table a").first
        target = link.get_attribute("href")
        link.click()
        assert page.evaluate("location.hash") == target
        assert abs(page.evaluate(f"document.querySelector('{target}').getBoundingClientRect().top")) < 200
        assert page.evaluate("document.documentElement.scrollWidth") <= browser.SIZES[size]["width"]
        assert page.locator("mark").count() > 0


def test_several_runs_on_one_page(smoke, tmp_path):
    """A copy with another penalty, and a verdict turned around, beside the run itself."""
    other = tmp_path / "other"
    other.mkdir()
    for file in [*smoke.glob("*.csv"), *smoke.glob("*.json")]:
        (other / file.name).write_text(file.read_text())
    e, claims = read_json(other / "experiment.json"), read_json(other / "claims.json")
    e["ppo"]["kl_max"] += 1
    claims[0]["verdict"] = "holds" if claims[0]["verdict"] != "holds" else "fails"
    files.write_json(other / "experiment.json", e)
    files.write_json(other / "claims.json", claims)
    rows = read_csv(smoke / "curves.csv")
    for row in rows:
        row["gold"] = str(float(row["gold"]) / 2) if row["rm_params"] == "801" else row["gold"]
    files.write_csv(other / "curves.csv", list(rows[0]), rows)
    page = compare.write([smoke, other], tmp_path / "compare.html")
    text = page.read_text()
    assert text.count("<mark>") == 1
    assert f"<mark>{html.escape(claims[0]['text'])}</mark>" in text
    assert f"<summary>{len(claims) - 1} claims that every run leaves undecided</summary>" in text
    assert text.index("id=configs") < text.index("id=curves")
    differ = re.findall(r"<tr><td>([\w.]+)</td><td class=text>", text[text.index("id=configs") :])
    assert differ == ["ppo.kl_max"]
    assert "The same gold judged all of them" in text
    with browser.opened(page, "desktop") as shown:
        rows = read_csv(smoke / "curves.csv")
        sizes = {r["rm_params"] for r in rows if r["method"] == "bon" and not r["rm_combined"]}
        assert shown.locator("[id^=bon-][id$=-plot]").count() == len(sizes)
        names = lambda rm: shown.evaluate(
            f"document.getElementById('bon-{rm}-plot').data.filter(t => t.showlegend).map(t => t.name)"
        )
        assert names(801) == ["smoke", "other"]
        assert names(max(map(int, sizes))) == ["smoke = other"]  # one curve, which two would only hide
    with pytest.raises(RunError, match="not a run with finished fits"):
        compare.write([smoke, tmp_path], tmp_path / "compare.html")


def test_the_report_says_where_the_time_went(smoke):
    stages = read_json(smoke / "stages.json")
    found = {row["stage"]: row for row in costs.costs(RunFiles(smoke))}
    assert found["bon"]["instances"] == 3 + 1  # sizes of proxies, and gold as its own
    assert sum(row["seconds"] for row in found.values()) == pytest.approx(sum(row["seconds"] for row in stages))
    parts_of = {"samples": {"sample", "score"}, "scores": {"score"}, "ppo": {"iterate", "read", "wait"}}
    for kind, parts in {**parts_of, "sft": {"batch"}}.items():
        assert parts <= set(found[kind]["spent"])
        assert 0 < sum(found[kind]["spent"].values()) < found[kind]["seconds"]
    for kind in ("samples", "ppo", "sft"):
        assert found[kind]["tokens_per_second"] > 0
    assert 0 < found["ppo"]["compile"] < found["ppo"]["seconds"]
    assert "where its time went" in (smoke / "report.html").read_text()


def test_report_comes_from_files_alone(smoke, tmp_path):
    here = copied(smoke, tmp_path)
    (here / "report.html").unlink()
    run_report.write(here)

    def drawn(page):
        return page[: page.index("What this run cost")]

    assert drawn((here / "report.html").read_text()) == drawn((smoke / "report.html").read_text())
    with pytest.raises(RunError, match="not a run"):
        run_report.write(smoke.parent)


FIGURE = """
from rmo.report.figures.drawing import drawing, simple


@drawing
def my_figure(f):
    '''Mine: gold against KL.

    Drawn by a file of my own.
    '''
    return simple(f, f.sizes("bon"), "params", "RM parameters")
"""


def test_a_figure_of_a_plugin_reaches_the_page(smoke, tmp_path, monkeypatch):
    here = copied(smoke, tmp_path)
    (tmp_path / "my_plugin.py").write_text(FIGURE)
    monkeypatch.setenv("RMO_PLUGINS", str(tmp_path / "my_plugin.py"))
    drawing.drawings()
    monkeypatch.setattr(drawing, "_DRAWINGS", dict(drawing._DRAWINGS))  # later tests do not know it
    plugins.load()
    del sys.modules["rmo_plugin_my_plugin"]
    page = run_report.write(here).read_text()
    assert (here / "figures" / "my_figure.svg").exists()
    assert page.index("id=beyond") < page.index("<h3 id=my_figure>Mine: gold against KL</h3>")
    assert "Drawn by a file of my own." in page


def test_a_sweep_whose_name_ends_like_another_is_not_taken_for_it(smoke, tmp_path):
    """Stages of a sweep `x-main`, which come first in the run: the texts shown are those of `main`."""
    here = copied(smoke, tmp_path)
    rows = read_json(here / "stages.json")
    for kind in ("scores", "bon"):
        (old,) = here.glob(f"{kind}/w8x1-main-*")
        new = shutil.copytree(old, here / kind / "w8x1-x-main-0123456789")
        (new / "DONE").unlink()  # it says of which stage it is
        info = read_json(new / "info.json")
        info |= {"sweep": "x-main"} if kind == "scores" else {"scores": "scores/w8x1-x-main"}
        files.write_json(new / "info.json", info)
        Stage(new).mark_done(f"{kind}/{new.name}")
        row = {"stage": f"{kind}/w8x1-x-main", "path": f"{kind}/{new.name}", "state": "done", "seconds": 1.0}
        rows.insert(0, row)
    files.write_json(here / "stages.json", rows)
    resealed(here)

    def shown(run, sweep):
        """Methods whose texts are shown, by RM size."""
        found = texts.main_stages(RunFiles(run), sweep)
        return {params: [method.name for method, _ in stages] for params, stages in found.items()}

    assert shown(here, "main") == shown(smoke, "main")
    assert shown(smoke, "main")[801] == ["bon", "ppo"]
    assert shown(here, "x-main") == {801: ["bon"]}
