"""curves.csv: what is written is read again, older and foreign tables are read, and bad ones are named."""

from pathlib import Path

import numpy as np
import pytest

from rmo.analysis import scaling
from rmo.analysis.curve import Curve, CurveError
from rmo.analysis.curve_id import CurveId, Settings
from rmo.artifacts import tables
from rmo.artifacts.curves_csv import COLUMNS, MEASURED, curves_of, from_columns, from_rows, to_rows
from rmo.runtime.files import RunError, read_csv, write_csv
from tests.helpers.made_curves import made

RESULTS = Path(__file__).parents[2] / "configs" / "results"
KEPT = RESULTS / "first_edition" / "curves.csv"


def test_csv_round_trip(tmp_path):
    curves = [made("bon", 0.5, 0.1, params=p, noise=0.3) for p in (10, 100)]
    write_csv(tmp_path / "c.csv", COLUMNS, [row for c in curves for row in to_rows(c)])
    back = from_rows(read_csv(tmp_path / "c.csv"))
    for a, b in zip(curves, back, strict=True):
        np.testing.assert_allclose(a.gold, b.gold, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(a.gold_se, b.gold_se, rtol=1e-8)
        assert b.id == a.id
    assert scaling.summarise(back, draws=50)["bon"]["groups"][0]["alpha_interval"][0] < 0.5


def test_a_spreadsheets_csv_is_read(tmp_path):
    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbfkl, gold\n0,0\n1, 0.5\n4,0.7\n")
    (curve,) = from_rows(read_csv(tmp_path / "c.csv"))
    assert curve.gold.tolist() == [0, 0.5, 0.7]


IDS = [
    CurveId("bon"),
    CurveId("bon", seed=0),
    CurveId("bon", 457, 2000, Settings(epochs=4, dropout=0.1), seed=1),
    CurveId("ppo", 457, 2000, Settings(weight_decay=0.0123456789012345), "mean", 98_624, Settings(kl_coef=0.05), 2),
    CurveId("ppo", 457, None, Settings(), "uncertainty_penalised=0.5", 98_624, Settings(kl_coef=0.05, lr_scale=2), 0),
    CurveId("ppo", settings=Settings({"": "a run's own label - lr 1e-6", "kl_coef": 0.1})),
    CurveId("ppo", settings=Settings(schedule="cosine")),
]


@pytest.mark.parametrize("id", IDS, ids=str)
def test_an_identity_comes_back_as_it_was(tmp_path, id):
    curve = Curve(id, np.arange(3), np.array([0, 1.5, 2.5]), np.zeros(3), np.array([0.0, 1, 0.5]))
    write_csv(tmp_path / "c.csv", COLUMNS, to_rows(curve))
    (back,) = from_rows(read_csv(tmp_path / "c.csv"))
    assert back.id == id
    assert str(back.id.settings) == str(id.settings)
    for name in ("step_or_n", "kl", "proxy", "gold"):
        np.testing.assert_array_equal(getattr(back, name), getattr(curve, name))
    assert back.gold_se is None


def test_identities_in_one_table_stay_apart():
    table = [row for id in IDS for row in to_rows(Curve(id, *(np.arange(3.0),) * 4))]
    text = [{name: "" if row.get(name) is None else str(row[name]) for name in COLUMNS} for row in table]
    assert [c.id for c in from_rows(text)] == IDS


OLD = """method,step_or_n,kl,proxy,gold,rm_params,rm_comparisons,policy_params,kl_coef,seed,variant
bon,1,0,0,0,457,36000,98624,,0,
bon,1,0,0,0,457,2000,98624,,1,epochs=4 dropout=0.1
ppo,1,0.1,0,0,457,36000,98624,0.0,0,
ppo,1,0.1,0,0,457,36000,98624,0.05,0,
ppo,1,0.1,0,0,457,36000,98624,0.05,0,lr_scale=2
ppo,1,0.1,0,0,,,,,,big run
"""


def test_an_older_table_is_read(tmp_path):
    """Its column `variant` held the RM's recipe, the method's settings and labels of runs alike."""
    (tmp_path / "c.csv").write_text(OLD)
    rm = {"rm_params": 457, "rm_comparisons": 36_000, "policy_params": 98_624}
    assert [c.id for c in from_rows(read_csv(tmp_path / "c.csv"))] == [
        CurveId("bon", **rm, seed=0),
        CurveId("bon", **{**rm, "rm_comparisons": 2000}, rm_recipe=Settings(epochs=4, dropout=0.1), seed=1),
        CurveId("ppo", **rm, seed=0),
        CurveId("ppo", **rm, settings=Settings(kl_coef=0.05), seed=0),
        CurveId("ppo", **rm, settings=Settings(kl_coef=0.05, lr_scale=2), seed=0),
        CurveId("ppo", settings=Settings({"": "big run"})),
    ]


def test_a_kept_table_of_an_older_version_is_read():
    rows = read_csv(KEPT)
    assert "variant" in rows[0]
    same = ("rm_params", "rm_comparisons", "policy_params", "variant", "seed")
    plain = [row for row in rows if row["kl_coef"] in ("", "0")]
    first = [row for row in plain if all(row[name] == rows[0][name] for name in same)]
    curves = from_rows(first)
    assert curves[0].id == CurveId("bon", 457, 36_000, policy_params=98_624, seed=0)
    assert {c.method for c in curves} == {"bon", "ppo"}
    assert sum(len(c.kl) for c in curves) == len(first)
    again = [{name: str(row.get(name, "")) for name in COLUMNS} for c in curves for row in to_rows(c)]
    assert [c.id for c in from_rows(again)] == [c.id for c in curves]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([{"kl": "1"}], "no column gold"),
        ([{"kl": "1", "gold": "x"}], "line 2: gold is 'x'"),
        ([{"kl": "1", "gold": ""}], "finite"),
        ([{"kl": "1", "gold": "1", "method": "sft"}], "method is 'sft'"),
        ([{"kl": "1", "gold": None}], "more or fewer cells"),
        ([{"kl": "1", "gold": "1"}, {"kl": "1", "gold": "2"}], "two points at kl 1: tell its runs apart"),
        ([{"kl": k, "gold": "1", "step_or_n": "7"} for k in "12"], "two points at step_or_n 7: tell its runs apart"),
        ([{"kl": "1", "gold": "1", "gold_se": "1"}, {"kl": "2", "gold": "1", "gold_se": ""}], "gold_se is filled in"),
    ],
)
def test_bad_tables_are_named(rows, message):
    with pytest.raises(CurveError, match=message):
        from_rows(rows)


@pytest.mark.parametrize("name", ["rm_params", "seed", "kl_coef"])
@pytest.mark.parametrize("cell", ["many", "inf"])
def test_a_cell_of_an_identity_that_is_no_number_is_named(name, cell):
    with pytest.raises(CurveError, match=f"line 2: {name} is '{cell}', not a number"):
        from_rows([{"kl": "1", "gold": "1", name: cell}])


@pytest.mark.parametrize("kept", sorted(RESULTS.rglob("curves.csv")), ids=lambda path: path.parent.name)
def test_a_table_is_read_by_columns_as_by_rows(kept):
    by_rows, by_columns = from_rows(read_csv(kept)), from_columns(tables.read(kept), "")
    assert [c.id for c in by_columns] == [c.id for c in by_rows]
    for a, b in zip(by_columns, by_rows, strict=True):
        for name in MEASURED:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


HEAD = ",".join(COLUMNS)
ROW = "bon,1,0.5,0.1,0.2,,,776,1000,,,,,0,,"


@pytest.mark.parametrize(
    "text",
    [
        "kl,gold\n0,0\n1,1_0\n2,1e-3\n", "kl, gold\n0,0\n1, 0.5\n", "\ufeffkl,gold\n0,0\n1,0.5\n", "gold,kl,kl\n0,3,0\n1,3,1\n",
        "kl,gold,settings\n0,0,a\n1,1,\"a, b\"\n2,1,\"a\nb\"\n", "kl,gold,seed\n0,0,1\n1,1,1.0\n", "kl,gold\r\n0,0\r\n\r\n1,1\r\n",
        "kl,gold,text\n0,0,some words\n1,1,more\n", "kl,gold,kl_coef,variant\n0,0,0.1,epochs=4\n1,1,0.1,epochs=4\n", f"{HEAD}\n{ROW}\n",
        "kl,gold\n", "", "\n", "kl\n1\n", "kl,gold\n1,x\n", "kl,gold\n1,\n", "kl,gold\n1\n", "kl,gold\n1,2,3\n", "kl,gold,method\n1,1,sft\n",
        "kl,gold\n1,1\n1,2\n", "kl,gold,gold_se\n1,1,1\n2,1,\n", "kl,gold,seed\n1,1,inf\n", "kl,gold,seed\n1,1,many\n", "kl,gold,seed\n1,1,1.5\n",
        "kl,gold\nnan,1\n", "kl,gold\n1,inf\n", f"{HEAD}\n{ROW[:9]}\n", "kl,gold\n0,\x00\n",
        "kl,gold\r0,0\r1,1\r", f"{'k' * 200_000},kl,gold\n1,1,1\n", '"a\nb",kl,gold,settings\n1,0,0,007\n2,1,1,007\n', '"kl,gold\n1,1\n',
        *(f"kl,gold,{name}\n0,0,{cell}\n1,1,{other}\n" for name in ("seed", "kl_coef", "proxy") for cell, other in (("nan", "nan"), ("NaN", "1"), ("nan(abc)", "1"))),
    ],
)  # fmt: skip
def test_an_odd_table_is_read_or_refused_by_columns_as_by_rows(tmp_path, text):
    path = tmp_path / "c.csv"
    path.write_text(text, newline="")

    def read(how):
        try:
            return [(c.id, [np.array(getattr(c, name), float).tolist() for name in MEASURED]) for c in how()]
        except (CurveError, RunError) as error:
            return str(error)

    found = read(lambda: curves_of(path))
    assert repr(found) == repr(read(lambda: from_rows(read_csv(path), str(path))))


@pytest.mark.parametrize(
    "whole", ["kl,gold\r\n1,1\r\n".encode("utf-16"), b"kl,gold,\xff\n0,0,1\n", b"kl,gold,a\n0,0,\xff\n", b"\xff\xfe\n"]
)
def test_bytes_that_are_no_text_are_refused(tmp_path, whole):
    (tmp_path / "c.csv").write_bytes(whole)
    for how in (curves_of, tables.read):
        with pytest.raises(RunError, match=r"c\.csv is no "):
            how(tmp_path / "c.csv")
