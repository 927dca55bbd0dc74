import numpy as np
import pytest

from rmo import config
from rmo.runtime.files import RunError
from rmo.worlds import comparisons


def make(count, offset=0):
    rng = np.random.default_rng(offset)
    tokens = rng.integers(0, 30, (count, 2, 7)).astype(np.int32)
    return comparisons.Comparisons(
        tokens,
        tokens > 3,
        rng.normal(size=(count, 2)).astype(np.float32),
        np.arange(offset, offset + count, dtype=np.int32),
    )


def test_comparisons_survive_the_disk(tmp_path):
    train, validation = make(50), make(10, 1000)
    comparisons.write_comparisons(tmp_path, train=train, validation=validation)
    for split, rows in {"train": train, "validation": validation}.items():
        back = comparisons.read_comparisons(tmp_path, split)
        order = np.argsort(back.prompt)  # tfds shuffles on writing
        for a, b in zip(rows, back, strict=True):
            np.testing.assert_array_equal(a, b[order])
            assert a.dtype == b.dtype
    assert list(tmp_path.rglob("*.array_record*"))
    # Any other JAX code can read it through tfds alone.
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(str(next(tmp_path.rglob("dataset_info.json")).parent)).as_data_source(
        split="train"
    )
    assert len(source) == 50
    assert set(source[0]) == {"tokens", "mask", "gold", "prompt"}
    with pytest.raises(RunError, match="run again"):
        comparisons.read_comparisons(tmp_path / "elsewhere", "train")


def test_what_a_killed_run_left_of_a_dataset_goes(tmp_path):
    left = tmp_path / "dataset" / "rmo_comparisons" / "incomplete.ABCDEF_1.0.0"
    left.mkdir(parents=True)
    (left / "features.json").write_text("{")
    comparisons.write_comparisons(tmp_path / "dataset", train=make(5))
    assert not list(tmp_path.rglob("*incomplete*"))
    assert len(comparisons.read_comparisons(tmp_path / "dataset", "train").prompt) == 5


def test_epochs_visit_every_row_once_and_depend_on_step_alone():
    rows = comparisons.epochs(103, 10, (3,))
    first = np.concatenate([rows(step) for step in range(10)])
    assert len(set(first)) == 100
    second = np.concatenate([rows(step) for step in range(10, 20)])
    assert not np.array_equal(first, second)
    fresh = comparisons.epochs(103, 10, (3,))
    np.testing.assert_array_equal(fresh(17), rows(17))  # a resumed run sees the same batch
    assert not np.array_equal(comparisons.epochs(103, 10, (4,))(0), rows(0))


def test_rows_of_a_recipe():
    prompts = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 8))
    one, other = (comparisons.chosen_rows(prompts, config.Recipe(100), np.random.default_rng(s)) for s in (0, 1))
    assert len(set(one.tolist())) == 100
    assert len(set(one.tolist()) & set(other.tolist())) < 60  # seeds draw their own
    whole = comparisons.chosen_rows(prompts, config.Recipe(400), np.random.default_rng(0))
    np.testing.assert_array_equal(whole, np.arange(400))
    for few, each in ((10, 8), (40, 2)):
        rows = comparisons.chosen_rows(prompts, config.Recipe(80, prompts=few), np.random.default_rng(2))
        names, counts = np.unique(prompts[rows], return_counts=True)
        assert len(names) == few
        assert (counts == each).all()
        assert len(set(rows.tolist())) == 80
