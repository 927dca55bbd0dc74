"""What a curve is of: settings as text, labels, the order of groups, which curves belong together."""

import dataclasses
from dataclasses import dataclass

import pytest

from rmo.analysis.curve_id import GOLD, NO_RM, CurveId, Settings
from rmo.artifacts.curves_csv import from_rows


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("epochs=4 dropout=0.1", {"epochs": 4, "dropout": 0.1}),
        ("schedule=cosine", {"schedule": "cosine"}),
        ("lr=1e-06", {"lr": 1e-6}),
        ("a run's label", {"": "a run's label"}),
        ("a label - lr=3", {"": "a label - lr=3"}),  # what comes after a word without a name is the label's
        ("kl_coef=0.1 big", {"kl_coef": 0.1, "": "big"}),
        ("=3", {"": "=3"}),
        ("gold=nan", {"gold": "nan"}),  # as a number it would not equal itself
    ],
)
def test_settings_are_text_and_back(text, values):
    assert Settings.parse(text) == Settings(values) == values
    assert str(Settings(values)) == text


def test_a_label_comes_last_and_all_digits_are_kept():
    assert str(Settings({"": "big", "kl_coef": 0.1})) == "kl_coef=0.1 big"
    assert str(Settings(a=4.0, b=1 / 3, c=123456789012)) == "a=4 b=0.3333333333333333 c=123456789012.0"
    assert Settings.parse(str(Settings(b=1 / 3))) == Settings(b=1 / 3)


def test_settings_are_equal_in_any_order_and_serve_as_keys():
    one, other = Settings(epochs=4, dropout=0.1), Settings.parse("dropout=0.1 epochs=4")
    assert one == other
    assert hash(one) == hash(other)
    assert {one: 1}[other] == 1
    assert one != Settings(epochs=4)
    assert not Settings()
    with pytest.raises(TypeError):
        one["epochs"] = 5


def test_settings_as_numbers_and_without_some():
    s = Settings(kl_coef=0.1, lr_scale=2)
    assert (s.number("kl_coef"), s.number("rounds"), s.number("rounds", 1)) == (0.1, 0, 1)
    assert s.without("kl_coef") == {"lr_scale": 2}
    assert repr(s) == "Settings('kl_coef=0.1 lr_scale=2')"


def test_what_differs_from_the_default():
    @dataclass(frozen=True)
    class Recipe:
        epochs: int = 1
        schedule: str = "constant"

    assert Settings.differing(Recipe(4, "cosine"), Recipe()) == {"epochs": 4, "schedule": "cosine"}
    assert Settings.differing(Recipe(), Recipe()) == {}


ONE = CurveId("ppo", 457, 2000, Settings(epochs=4), "mean", 98_624, Settings(kl_coef=0.1, lr_scale=2), 3)


def test_what_curves_have_in_common():
    seed, size = dataclasses.replace(ONE, seed=4), dataclasses.replace(ONE, rm_params=900)
    assert ONE.group == seed.group != size.group
    assert ONE.family == size.family == seed.family
    other = dataclasses.replace(ONE, method="bon", settings=Settings())
    assert ONE.same_rm == other.same_rm
    assert ONE.same_rm != seed.same_rm  # another RM of the kind
    assert ONE.same_rm != dataclasses.replace(other, rm_recipe=Settings()).same_rm
    # For the bootstrap an RM is its size and data: one seed's luck is shared by all recipes.
    assert ONE.rm == dataclasses.replace(ONE, rm_recipe=Settings()).rm == seed.rm
    assert ONE.rm != dataclasses.replace(ONE, rm_combined="").rm


def test_gold_and_labels_alone_are_no_rm_of_a_sweep():
    how = {"": True, "mean: mean of 2": True, GOLD: False, NO_RM: False}
    assert {name: dataclasses.replace(ONE, rm_combined=name).against_rm for name in how} == how
    alone = CurveId("direct", 0, 2000, rm_combined=NO_RM, seed=1, settings=Settings(beta=0.1))
    assert CurveId.of_cells({name: str(cell) for name, cell in alone.cells().items() if cell is not None}) == alone
    assert alone.label([alone]) == "no RM, beta=0.1"


def test_labels_say_what_differs():
    small, large = CurveId("bon", 457, 2000, policy_params=98_624), CurveId("bon", 12_345, 2000, policy_params=98_624)
    assert large.label([small, large]) == "12,345 parameters"
    more = dataclasses.replace(small, rm_comparisons=8000)
    assert more.label([small, more]) == "457 parameters, 8,000 comparisons"
    policy = dataclasses.replace(small, policy_params=500_000)
    assert policy.label([small, policy]) == "457 parameters, policy 500,000"
    free, held = (dataclasses.replace(small, settings=Settings(kl_coef=x)) for x in (0, 0.05))
    assert held.label([free, held]) == "457 parameters, KL coefficient 0.05"
    assert held.label([held]) == "457 parameters"
    odd = dataclasses.replace(small, rm_recipe=Settings(epochs=4), rm_combined="mean", settings=Settings(lr_scale=2))
    assert odd.label([odd]) == "457 parameters, mean, epochs=4, lr_scale=2"
    assert CurveId("ppo", settings=Settings({"": "my run"})).label([]) == "my run"
    assert CurveId("ppo").label([]) == "all"


def test_groups_are_sorted_by_size_data_policy_penalty_and_the_rest():
    base = CurveId("ppo", 457, 2000, policy_params=100)
    ordered = [
        base,
        dataclasses.replace(base, rm_recipe=Settings(epochs=4)),
        dataclasses.replace(base, settings=Settings(kl_coef=0.05)),
        dataclasses.replace(base, settings=Settings(kl_coef=0.2)),
        dataclasses.replace(base, policy_params=900),
        dataclasses.replace(base, rm_comparisons=10_000),
        dataclasses.replace(base, rm_params=1000, rm_comparisons=None),
    ]
    shuffled = [*ordered[3:], *ordered[:3]]
    assert sorted(shuffled, key=lambda id: id.order) == ordered


def test_cells_and_back():
    cells = ONE.cells()
    assert cells == {
        "method": "ppo", "rm_params": 457, "rm_comparisons": 2000, "rm_recipe": "epochs=4", "rm_combined": "mean",
        "policy_params": 98_624, "settings": "kl_coef=0.1 lr_scale=2", "seed": 3,
    }  # fmt: skip
    assert CurveId.of_cells(cells) == ONE
    assert CurveId.of_cells({name: str(cell) for name, cell in cells.items()}) == ONE
    assert CurveId.of_cells({"method": "bon", "seed": "", "rm_params": float("nan")}) == CurveId("bon")


def test_columns_of_older_tables():
    """`variant` held an RM's recipe and a method's settings; `kl_coef` had a column of its own."""
    old = {"method": "ppo", "rm_params": "457", "kl_coef": "0.05", "variant": "epochs=4 lr_scale=2"}
    assert CurveId.of_cells(old) == CurveId(
        "ppo", 457, rm_recipe=Settings(epochs=4), settings=Settings(kl_coef=0.05, lr_scale=2)
    )
    assert CurveId.of_cells({"method": "ppo", "kl_coef": 0.0, "variant": ""}) == CurveId("ppo")
    assert CurveId.of_cells({"method": "ppo", "variant": "my run"}).settings == {"": "my run"}
    with pytest.raises(ValueError, match="seed is 'x', not a number"):
        CurveId.of_cells({"method": "ppo", "seed": "x"})


def test_a_table_of_curves_may_tell_them_apart_by_kl_coef_beside_settings():
    """As `rmo fit --group kl_coef` does: two penalties are two curves, and not one with twice the points."""
    rows = [
        {
            "method": "ppo",
            "step_or_n": step,
            "kl": step,
            "proxy": 0.1 * step,
            "gold": 0.1 * step,
            "kl_coef": coef,
            "settings": "",
        }
        for coef in (0.0, 0.1)
        for step in range(4)
    ]
    curves = from_rows([{name: str(cell) for name, cell in row.items()} for row in rows])
    assert [len(curve.kl) for curve in curves] == [4, 4]
    assert len({curve.id for curve in curves}) == 2
