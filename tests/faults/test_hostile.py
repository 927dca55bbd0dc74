"""What comes from others cannot run anything, write anywhere else or fetch anything (tests/experiment/test_hostile_run.py
has the page of a whole run)."""

import ast
import dataclasses
import json

import pytest

from rmo.artifacts.stages import Stage
from rmo.checkpoints.tokenizers import load_tokenizer
from rmo.experiment import graph, runner
from rmo.runtime import files, sharding
from rmo.runtime.files import RunError
from rmo.worlds import templates
from rmo.worlds.dialogue import Message
from tests.faults.command import call, problem
from tests.helpers.checkpoints import write_tokenizer
from tests.helpers.hostile import HOSTILE, harmless
from tests.helpers.smoke import ROOT, SMOKE

# The source tree.

SOURCES = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "rmo").rglob("*.py"))}
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "torch"}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield node, name, isinstance(node.func, ast.Name)


def keyword(node, name):
    return next((k.value.value for k in node.keywords if k.arg == name and isinstance(k.value, ast.Constant)), None)


def faults_of_source(tree):
    """What in a module could run what a file says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"imports {name}" for name in names if name.split(".")[0] in FORBIDDEN)
    for node, name, bare in calls(tree):
        if bare and name in ("eval", "exec", "compile", "__import__"):
            yield f"calls {name}"
        if (
            name == "load"
            and ast.unparse(node.func) in ("np.load", "numpy.load")
            and keyword(node, "allow_pickle") is not False
        ):
            yield "np.load without allow_pickle=False"
        if keyword(node, "trust_remote_code") or keyword(node, "allow_pickle") or keyword(node, "shell"):
            yield f"{name} trusts what it opens"
        if name in ("extractall", "unpack_archive", "system", "popen") or (name == "Environment" and not bare):
            yield f"calls {name}"


def test_no_pickle_no_remote_code_no_evaluation():
    wrong = [f"{path}: {what}" for path, tree in SOURCES.items() for what in faults_of_source(tree)]
    assert not wrong, "\n".join(wrong)
    assert len(SOURCES) > 100


@pytest.mark.parametrize("line", ["import pickle", "from yaml import load", "eval('1')", "np.load(f)", "np.load(f, allow_pickle=True)",
                                  "A.from_pretrained(x, trust_remote_code=True)", "run('x', shell=True)", "t.extractall()", "jinja2.Environment()"])  # fmt: skip
def test_the_look_at_the_source_finds_each(line):
    assert list(faults_of_source(ast.parse(line)))


# Chat templates.


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages[0].content }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ range(10**12) | list }}",
        "{% set x = messages.append(1) %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.system('x') }}",
        "{{ cycler.__init__.__globals__.os.system('touch hit') }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_hostile_chat_template_ends_in_one_line(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(templates, "SECONDS", 1.0)
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "t", chat=True))
    tokenizer.chat_template = template
    with pytest.raises(templates.TemplateError) as error:
        templates.render(tokenizer, (Message("user", "why?"),), answer=False)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t"]


# Run directories.


@pytest.fixture
def outside(tmp_path):
    """A directory that a run must leave alone, with a file in it."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "mine.txt").write_text("mine")
    return place


def untouched(outside):
    return [(path.name, path.read_text()) for path in sorted(outside.rglob("*"))] == [("mine.txt", "mine")]


def quick(root):
    """A smoke run whose stages leave an empty file."""
    run = graph.open_run(SMOKE, root, sharding.make_mesh(1))
    for name, stage in run.stages.items():
        run.stages[name] = dataclasses.replace(stage, make=lambda run, out: files.write_text(out / "made", ""))
    return run


@pytest.mark.parametrize("link", ["proxies", "{sft}"])
def test_a_stage_is_not_made_through_a_link_that_leads_out(link, tmp_path, outside):
    run = quick(tmp_path / "run")
    run.root.mkdir()
    name = link.format(sft=run.stages["sft"].path)
    (run.root / name).symlink_to(outside)
    with pytest.raises(RunError, match="leads out of the run directory") as error:
        runner.execute(run)
    assert str(run.root / name) in str(error.value)
    assert "\n" not in str(error.value)
    assert untouched(outside)


def test_nothing_is_removed_through_a_link(tmp_path, outside):
    """--remake removes stages that other code made: of a directory behind a link, nothing; scratch is no exception."""
    run = quick(tmp_path / "run")
    stage = outside / run.stages["proxies/w8x1-main"].path.split("/")[1]
    for directory in (stage, stage / "scratch"):
        directory.mkdir()
    (stage / "cost.json").write_text(json.dumps({"code": "other", "seconds": 1.0}))
    (stage / "DONE").write_text("x")
    run.root.mkdir()
    (run.root / "proxies").symlink_to(outside)
    with pytest.raises(RunError, match="leads out of the run directory"):
        runner.remake(run, list(run.stages))
    for name in run.stages:  # all else is done
        if not name.startswith("proxies/"):
            Stage(run.path(name)).write_cost({"seconds": 1.0})
            Stage(run.path(name)).mark_done("x")
    with pytest.raises(RunError, match="leads out of the run directory"):
        runner.execute(run)
    assert (stage / "scratch").is_dir()
    assert (stage / "DONE").exists()


def test_a_run_directory_may_itself_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    assert runner.execute(quick(tmp_path / "run"), ("sft",)) == ["sft"]


def test_a_part_that_is_a_link_is_not_written_through(tmp_path, outside):
    (tmp_path / ".report.html.part").symlink_to(outside / "mine.txt")
    files.write_text(tmp_path / "report.html", "new")
    assert (tmp_path / "report.html").read_text() == "new"
    assert not (tmp_path / "report.html").is_symlink()
    assert untouched(outside)


@pytest.mark.parametrize("where", ["../../outside", "{outside}", "..", "sft-0000000000/../../outside"])
def test_paths_in_a_run_s_lists_lead_nowhere(where, tmp_path, outside):
    """planned.json and stages.json are read by `rmo watch`, `rmo report` and `rmo hedges`, which write nothing there."""
    where = where.format(outside=outside)
    run = tmp_path / "top" / "run"
    run.mkdir(parents=True)
    names = ["sft", "proxies/w8x1-main", "bon/w8x1-main", HOSTILE, "../../outside"]
    (run / "planned.json").write_text(json.dumps(dict.fromkeys(names, where)))
    (run / "stages.json").write_text(
        json.dumps([{"stage": n, "path": where, "state": "done", "seconds": 1.0} for n in names])
    )
    (run / "experiment.json").write_text(json.dumps({"name": "../../outside/x", "note": HOSTILE}))
    for args in (["watch", "run", "--once"], ["report", "run"], ["hedges", "run"]):
        found = problem(call(args, run.parent))
        assert not found, (args, found)
    assert untouched(outside)


@pytest.mark.parametrize("name", ["..", ".", "../x", "/abs", "a/b", ""])
def test_an_experiment_s_name_does_not_lead_out_of_runs(name, tmp_path):
    source = (ROOT / "configs" / "smoke.py").read_text().replace('name="smoke"', f"name={name!r}")
    (tmp_path / "c.py").write_text(source)
    ended = call(["run", "c.py"], tmp_path)
    assert not problem(ended)
    assert ended.code == 2
    assert ended.err.startswith("rmo: name is ")


# The network.


@pytest.mark.parametrize(
    "args",
    [
        ["list", str(ROOT / "configs" / "pythia.py")],
        ["list", str(ROOT / "configs" / "qwen.py")],
        ["report", "owner/name"],
        ["hedges", "owner/name"],
        ["watch", "owner/name", "--once"],
        ["forecast", "owner/name", "--rm-params", "5"],
        ["fit", "owner/name"],
        ["bon", "owner/name"],
        ["convert", "owner/name.gguf", "out"],
    ],
)
def test_names_alone_fetch_nothing(args, tmp_path):
    ended = call(args, tmp_path)
    assert ended.asked == ()
    assert not problem(ended)


@pytest.mark.parametrize(
    "args",
    [
        ["report", "https://x.invalid/run"],
        ["report", "x://y"],
        ["report", "ftp://x.invalid/y"],
        ["watch", "https://x.invalid/run", "--once"],
    ],
)
def test_an_address_is_asked_for_itself_alone_and_ends_in_one_line(args, tmp_path):
    ended = call(args, tmp_path)
    assert all("x.invalid" in address for address in ended.asked)
    assert not problem(ended._replace(asked=()))
    assert ended.code == 2


# Pages without a run; a finished run's is in tests/experiment.


def test_a_page_of_hostile_columns_and_names_in_a_browser(tmp_path):
    """`rmo fit` of a table whose group, method and file say hostile things."""
    import csv

    name, gold = HOSTILE.replace("/", "")[:120], HOSTILE.replace("\u2028\u2029", "")
    with open(tmp_path / f"{name}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "kl", gold, "lr"])
        for group in (HOSTILE, "</title><script>window.hit = 1</script>"):
            for i in range(13):
                writer.writerow([i, i / 2, (i / 2) ** 0.5 - i / 12, group])
    args = [
        "fit",
        f"{name}.csv",
        "--kl",
        "kl",
        "--kl-sum",
        "--gold",
        gold,
        "--group",
        "lr",
        "--bootstrap",
        "5",
        "--out",
        "out",
    ]
    ended = call(args, tmp_path, seconds=60)
    assert not problem(ended), ended
    assert ended.code == 0
    harmless(tmp_path / "out" / "report.html")


def test_the_pages_of_tables_escape_what_runs_say():
    """Verdicts, summaries and comparisons are strings of a run's files."""
    from rmo.report import compare
    from rmo.report.page import verdicts

    c = {"claim": HOSTILE, "text": HOSTILE, "why": HOSTILE, "measured": HOSTILE, "figure": HOSTILE, "verdict": HOSTILE, "statistic": 1.0,
         "interval": [HOSTILE, 1.0], "threshold": [0.0, None], "n_runs": HOSTILE}  # fmt: skip
    made = [
        verdicts.claims_table([c, {**c, "statistic": None}], {HOSTILE}),
        verdicts.readings([c], HOSTILE),
        compare.verdicts({HOSTILE: [c], "b": [{**c, "verdict": "holds"}]}),
    ]
    for text in made:
        assert "window.hit" in text
        for mark in ("<script", "<img", "<b class=evil", "<a class=evil", "<i class=evil"):
            assert mark not in text
