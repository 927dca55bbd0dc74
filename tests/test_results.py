"""The results kept beside the configs, and what the README says of them."""

from pathlib import Path

import pytest

from rmo.artifacts.curves_csv import from_rows
from rmo.report.figures.drawing import Files
from rmo.report.page import markdown
from rmo.runtime.files import read_csv, read_json

ROOT = Path(__file__).parents[1]
KEPT = sorted(path.parent for path in (ROOT / "configs" / "results").rglob("results.md"))


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: str(path.relative_to(ROOT)))
def test_results_md_says_what_the_kept_tables_say(kept):
    curves = from_rows(read_csv(kept / "curves.csv"))
    files = Files(curves, read_json(kept / "coefficients.json"), [], [], {}, {}, {})
    text = (kept / "results.md").read_text()
    assert text == markdown.results(files, read_json(kept / "claims.json"))
    assert text.count("\n| C") + text.count("\n| H") == len(read_json(kept / "claims.json")) > 40


def test_readme_quotes_the_largest_run_word_for_word():
    """The table by RM size and how many claims hold; the claims themselves are in results.md alone."""
    readme = (ROOT / "README.md").read_text()
    quoted = (
        (ROOT / "configs" / "results" / "paper_tiny" / "world-2" / "results.md").read_text().split("\n|  | claim")[0]
    )
    assert quoted.count("\n| ") > 6
    for line in quoted.splitlines():
        assert line in readme, f"README.md lacks: {line}"


def test_the_results_readme_quotes_the_table_of_tiny():
    readme = (ROOT / "configs" / "results" / "README.md").read_text()
    table = (ROOT / "configs" / "results" / "tiny" / "results.md").read_text().split("\n\n")[0].splitlines()[2:]
    assert len(table) == 6
    for line in table:
        cells = line.strip("| ").split(" | ")
        assert f"| {' | '.join(cells[i] for i in (0, 1, 2, 5, 6))} |" in readme, line
