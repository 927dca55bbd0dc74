"""The steps of rmo/methods/README.md "To add a method", as they are written there."""

import dataclasses
import importlib
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from rmo.analysis import forms
from rmo.analysis.curve_id import Settings
from rmo.config import checks
from rmo.config.names import scored, scores_name
from rmo.methods import best_of_n, method
from rmo.methods.bench import Pool, RewardRow
from rmo.models import metrics

ROOT = Path(__file__).parents[2]
README = Path(method.__file__).with_name("README.md").read_text()
SECTION = README.split("## To add a method\n")[1].split("\n## ")[0]
PROMPTS, DRAWS = 6, 400


@pytest.fixture
def random_tie(tmp_path, monkeypatch):
    """The README's file, imported; the registry is as before afterwards."""
    method.every()
    monkeypatch.setattr(method, "_METHODS", dict(method._METHODS))
    (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.S)
    (tmp_path / "random_tie.py").write_text(re.sub("^   ", "", code, flags=re.M))
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("random_tie")


@dataclasses.dataclass
class MadeUpBench:
    """What best-of-n asks of a bench: the pool, the names of its rewards, a generator per purpose."""

    proxies: list[np.ndarray]
    gold_QN: np.ndarray

    @property
    def rewards(self):
        return [RewardRow(f"rm {m}", 1000, Settings(), 0, seed=m) for m in range(len(self.proxies))]

    def pool(self):
        return Pool(self.proxies, self.gold_QN, np.zeros(self.gold_QN.shape, np.float32), 1.0)

    def rng(self, purpose):
        return np.random.default_rng(zlib.crc32(purpose.encode()))


def test_a_new_method_is_one_file(random_tie):
    assert method.find("random_tie") is random_tie.METHOD
    assert random_tie.METHOD.form in forms.FORMS
    smoke = checks.load(ROOT / "configs" / "smoke.py")
    assert list(random_tie.jobs(smoke)) == []
    settings = random_tie.RandomTie(max_n=32)
    with_it = dataclasses.replace(smoke, methods=(settings,))
    jobs = list(random_tie.jobs(with_it))
    assert [job.scores for job in jobs] == [scores_name(with_it, *which) for which in scored(with_it)]
    assert {job.settings for job in jobs} == {settings}


def test_its_record_is_that_of_best_of_n_where_nothing_is_tied(random_tie):
    rng = np.random.default_rng(0)
    gold_QN = rng.normal(size=(PROMPTS, DRAWS))
    untied, tied = gold_QN + rng.normal(size=gold_QN.shape), np.round(gold_QN)
    bench = MadeUpBench([untied, tied], gold_QN)
    job = method.Job("made-up", "made-up", random_tie.RandomTie(max_n=32))
    record = random_tie.run(bench, job)
    ns = best_of_n.grid(32, job.settings.points)
    assert record.proxy.shape == record.gold.shape == (2, len(ns), PROMPTS)
    np.testing.assert_array_equal(record.step_or_n, [ns, ns])
    np.testing.assert_allclose(record.kl[0], metrics.kl_bon(ns))
    proxy_KQ, gold_KQ = best_of_n.best_of_n(untied, gold_QN, ns)
    np.testing.assert_allclose(record.proxy[0], proxy_KQ)
    np.testing.assert_allclose(record.gold[0], gold_KQ)
    # Where draws are tied the proxy's score is the same whoever wins, and gold is near the average over who does.
    proxy_KQ, gold_KQ = best_of_n.best_of_n(tied, gold_QN, ns)
    np.testing.assert_allclose(record.proxy[1], proxy_KQ)
    assert not np.allclose(record.gold[1], gold_KQ)
    np.testing.assert_allclose(record.gold[1].mean(1), gold_KQ.mean(1), atol=0.2)
    again = random_tie.run(bench, job)
    np.testing.assert_array_equal(again.gold, record.gold)
