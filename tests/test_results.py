"""The results kept beside the configs, and what the README says of them."""

from pathlib import Path

import pytest

from rmo.artifacts.curves_csv import from_rows
from rmo.report import worlds
from rmo.report.figures.drawing import Files
from rmo.report.page import markdown
from rmo.runtime.files import read_csv, read_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "configs" / "results"
KEPT = sorted(path.parent for path in RESULTS.rglob("results.md"))


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: str(path.relative_to(ROOT)))
def test_results_md_says_what_the_kept_tables_say(kept):
    curves = from_rows(read_csv(kept / "curves.csv"))
    files = Files(curves, read_json(kept / "coefficients.json"))
    text = (kept / "results.md").read_text()
    assert text == markdown.results(files, read_json(kept / "claims.json"))
    assert text.count("\n| C") + text.count("\n| H") == len(read_json(kept / "claims.json")) > 40


def test_worlds_md_says_what_the_kept_worlds_say():
    kept = RESULTS / "paper_tiny"
    summary = read_json(kept / "worlds.json")
    assert (kept / "worlds.md").read_text() == worlds.markdown(summary)
    claims = {name: {c["claim"]: c for c in read_json(kept / name / "claims.json")} for name in summary["worlds"]}
    assert {path.parent.name for path in kept.glob("world-*/claims.json")} == set(claims)
    for statement in summary["statements"]:
        for name, of in statement["by_world"].items():
            row = claims[name][statement["claim"]]
            assert {part: row[part] for part in of} == of


def test_readme_quotes_the_summary_over_worlds_word_for_word():
    """How many claims hold, forecasts, the table by RM size; the claims themselves are in worlds.md alone."""
    readme = (ROOT / "README.md").read_text()
    quoted = (RESULTS / "paper_tiny" / "worlds.md").read_text().split("\n|  | claim")[0]
    first, _, rest = quoted.partition("Statistics are means over worlds")
    assert quoted.count("\n| ") > 6
    for line in [first.strip(), *rest.splitlines()[1:]]:
        assert line in readme, f"README.md lacks: {line}"


def test_the_results_readme_quotes_the_table_of_tiny():
    readme = (ROOT / "configs" / "results" / "README.md").read_text()
    table = (ROOT / "configs" / "results" / "tiny" / "results.md").read_text().split("\n\n")[0].splitlines()[2:]
    assert len(table) == 6
    for line in table:
        cells = line.strip("| ").split(" | ")
        assert f"| {' | '.join(cells[i] for i in (0, 1, 2, 5, 6))} |" in readme, line
