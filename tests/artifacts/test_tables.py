"""Tables by columns: rows as dicts, the rows of a curve, and what the report makes of rows whose cells are not known."""

from pathlib import Path

import numpy as np

from rmo.analysis.curve_id import CurveId
from rmo.artifacts import tables
from rmo.artifacts.run_files import Fits
from rmo.report.figures.rounds import round_ends
from rmo.report.page.ensembles_section import ensembles_section
from rmo.runtime.files import read_csv, write_csv

RESULTS = Path(__file__).parents[2] / "configs" / "results"


def test_rows_of_a_curve_are_found_as_by_looking_at_each(tmp_path):
    """Of a curve its own, of a group those of all its seeds; a diagnostic called kl_coef is no part of an identity."""
    ids = [CurveId("ppo", size, seed=seed) for size in (1, 2) for seed in (0, 1, None)]
    rows = [{**id.cells(), "step": k, "kl_coef": 0.1 * k} for k in range(3) for id in ids]
    write_csv(tmp_path / "ppo.csv", list(rows[0]), rows)
    table = tables.read(tmp_path / "ppo.csv")
    for wanted in ids:
        one = [row["step"] for row in rows if wanted in (own := CurveId.of_cells(row), own.group)]
        assert [row["step"] for row in table.of(wanted)] == one
        assert len(one) == (3 if wanted.seed is not None else 9)
    assert table.of(CurveId("bon")) == []
    old = {"method": "ppo", "rm_params": "1", "kl_coef": "0.5"}
    assert CurveId.of_cells(old).settings == {"kl_coef": 0.5}


def test_a_table_is_a_sequence_of_dicts(tmp_path):
    rows = [
        {"method": "bon", "kl": 0.5 * k, "seed": None if k == 2 else k, "settings": "a, b" if k else ""}
        for k in range(4)
    ]
    write_csv(tmp_path / "t.csv", list(rows[0]), rows)
    table = tables.read(tmp_path / "t.csv")
    assert len(table) == 4
    assert table[1] == table[-3] == rows[1]
    assert table[1:3][0] == rows[1]
    assert [row["kl"] for row in table] == [0, 0.5, 1, 1.5]
    assert [row["kl"] for row in reversed(table)] == [1.5, 1, 0.5, 0]
    assert np.isnan(table[2]["seed"])
    write_csv(tmp_path / "none.csv", ["kl"], [])
    assert not tables.read(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("\n")
    assert list(tables.read(tmp_path / "empty.csv")) == []


def test_rows_that_lack_the_same_cells_are_alike(tmp_path):
    """Whoever looks rows up by their cells finds them: two NaN are equal as keys only where they are one object."""
    rows = [{"round": 1.0, "kl": float(k), "seed": None} for k in range(5)]
    write_csv(tmp_path / "t.csv", list(rows[0]), rows)
    table = tables.read(tmp_path / "t.csv")
    assert len({(row["seed"], row["round"]) for row in table}) == 1
    assert round_ends(list(table)) == [4.0]


def test_the_kept_table_of_ensembles_has_its_section():
    table = Fits(RESULTS / "methods_tiny").table("ensembles")
    assert "".join(ensembles_section(table)).count("<tr") > 100


def test_kept_tables_hold_the_numbers_of_their_cells():
    for path in RESULTS.rglob("*.csv"):
        table, text = tables.read(path), read_csv(path)
        assert len(table) == len(text)
        for name, cells in table.columns.items():
            wanted = [row[name] for row in text]
            same = (
                cells.tolist() == wanted
                if name in tables.TEXT
                else np.array_equal(cells, [float(x or "nan") for x in wanted], equal_nan=True)
            )
            assert same, (path, name)
