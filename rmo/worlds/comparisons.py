"""Comparisons: labelled, on disk (a tfds array_record dataset), and in batches that are pure functions of the step."""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmo import config
from rmo.runtime import checksums, hosts
from rmo.runtime.files import Json, Row, RunError, local, read_json, remove, write_json, written


class Comparisons(NamedTuple):
    """C labelled pairs, the preferred response at index 0."""

    tokens: np.ndarray  # i32[C, 2, T]
    mask: np.ndarray  # bool[C, 2, T]
    gold: np.ndarray  # f32[C, 2], raw gold scores
    prompt: np.ndarray  # i32[C], index of the prompt, for splits and bootstraps


@functools.cache  # tfds registers a class once per process
def _builder_class():
    import tensorflow_datasets as tfds

    class RmoComparisons(tfds.core.GeneratorBasedBuilder):
        """Comparisons labelled by a gold RM: tokens, mask, gold scores, prompt index; preferred first."""

        VERSION = tfds.core.Version("1.0.0")

        def __init__(self, *, splits: dict[str, Comparisons], **kwargs):
            self._rows = splits
            super().__init__(**kwargs)

        def _info(self):
            length = next(iter(self._rows.values())).tokens.shape[-1]
            features = {
                "tokens": tfds.features.Tensor(shape=(2, length), dtype=np.int32),
                "mask": tfds.features.Tensor(shape=(2, length), dtype=np.bool_),
                "gold": tfds.features.Tensor(shape=(2,), dtype=np.float32),
                "prompt": tfds.features.Scalar(dtype=np.int32),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(rows) for name, rows in self._rows.items()}

        def _generate_examples(self, rows: Comparisons) -> Iterator[tuple[int, Row]]:
            for i, (tokens, mask, gold, prompt) in enumerate(zip(*rows, strict=True)):
                yield i, {"tokens": tokens, "mask": mask, "gold": gold, "prompt": prompt}

    return RmoComparisons


def write_comparisons(directory: Path, **splits: Comparisons) -> None:
    """Write splits as a tfds dataset in array_record files; any JAX code can read it (`tfds.builder_from_directory`).

    tfds may shuffle rows on writing; `prompt` and `gold` travel with them.
    """
    if not hosts.writer():
        return
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    remove(directory)  # what a killed run left there
    with written(directory) as here:
        builder = _builder_class()(splits=splits, data_dir=str(here), file_format="array_record")
        with contextlib.redirect_stdout(io.StringIO()):  # tfds announces a download that does not happen
            builder.download_and_prepare()
        name = str(Path(builder.data_dir).relative_to(here))
    write_json(directory / "dataset.json", {"path": name})


def read_comparisons(directory: Path, split: str) -> Comparisons:
    """All rows of a split, in file order."""
    import tensorflow_datasets as tfds

    checksums.check_tree(directory)
    path = local(directory) / read_json(directory / "dataset.json")["path"]
    try:
        builder: Json = tfds.builder_from_directory(str(path))
        source = builder.as_data_source(split=split)
        rows = source.__getitems__(range(len(source)))
    except Exception as error:
        raise RunError(f"cannot read {path} [{split}]: {error}; {checksums.advice(directory)}") from error
    columns = Comparisons(*(np.stack([np.asarray(row[name]) for row in rows]) for name in Comparisons._fields))
    return columns._replace(prompt=columns.prompt.astype(np.int32))


def label(rng: np.random.Generator, gap_C: np.ndarray, c: config.Comparisons) -> np.ndarray:
    """Whether the first of each pair is preferred, from the gold gap in standard deviations. Ties are a coin's toss."""
    coin = rng.random(len(gap_C))
    if c.labels == "sampled":
        return coin < 1 / (1 + np.exp(-gap_C / c.temperature))
    first = np.where(gap_C == 0, coin < 0.5, gap_C > 0)
    return first ^ (rng.random(len(gap_C)) < c.flip) if c.labels == "flipped" else first


def chosen_rows(prompt_C: np.ndarray, recipe: config.Recipe, rng: np.random.Generator) -> np.ndarray:
    """Which of the training comparisons one proxy trains on, i64[recipe.comparisons] ascending, from their prompts.

    A random choice, so that RM seeds differ in their data too; with `recipe.prompts`, that many random prompts and
    equally many random comparisons of each.
    """
    order = rng.permutation(len(prompt_C))
    if not recipe.prompts:
        return np.sort(order[: recipe.comparisons])
    each, prompts = recipe.comparisons // recipe.prompts, prompt_C[order]
    names, first, place = np.unique(prompts, return_index=True, return_inverse=True)
    appears = np.argsort(np.argsort(first))[place]  # 0 for the prompt that comes first in the random order, ...
    by_prompt = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[by_prompt], np.arange(len(names)))
    before = np.empty(len(prompts), np.int64)  # how many comparisons of its prompt come before it
    before[by_prompt] = np.arange(len(prompts)) - starts[place[by_prompt]]
    return np.sort(order[(appears < recipe.prompts) & (before < each)])


def epochs(size: int, batch: int, seeds: tuple[int, ...]) -> Callable[[int], np.ndarray]:
    """step -> i64[batch] row indices: a fresh permutation every epoch, the short last batch dropped.

    A pure function of (seeds, step), so a resumed run sees the same batches.
    """
    per_epoch = max(size // batch, 1)
    cache: dict[int, np.ndarray] = {}

    def indices(step: int) -> np.ndarray:
        epoch, position = divmod(step, per_epoch)
        if epoch not in cache:
            cache.clear()
            cache[epoch] = np.random.default_rng([*seeds, epoch]).permutation(size)
        return cache[epoch][position * batch : (position + 1) * batch]

    return indices
