"""A third world in one file: what it takes, and that the whole experiment runs in it, under a gold of its own kind."""

import dataclasses
import sys
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

from rmo import config
from rmo.artifacts.curves_csv import from_rows
from rmo.checkpoints.tokenizers import load_tokenizer, make_tokenizer
from rmo.cli import main, options
from rmo.cli.commands.run import RunOptions
from rmo.config import checks
from rmo.experiment import gold, graph, runner
from rmo.experiment.mirror import tags
from rmo.experiment.stages.report import publish
from rmo.planning.programs import programs
from rmo.runtime import sharding
from rmo.runtime.files import read_csv, read_json
from rmo.worlds.world import PURPOSES, Prompts, Texts, World, register, world_of

ROOT = Path(__file__).parents[2]
PAD, BOS, EOS, FIRST = 0, 1, 2, 3


@dataclass(frozen=True)
class Numbers(config.WorldConfig):
    """Rising digits."""

    prompt: int = 4
    """P: bos and three digits."""
    response: int = 8
    """R."""
    digits: int = 10
    """Digits that there are."""
    favourite: int = 0
    """The digit that the annotator counts."""

    may_be_zero = ("favourite",)

    @property
    def tokens(self) -> int:
        return FIRST + self.digits


@dataclass(frozen=True)
class NumbersWorld(World):
    """Prompts are three digits in any order, responses rise; the annotator counts one digit."""

    c: Numbers

    name = "numbers"
    has_annotator = True
    eos = EOS

    @classmethod
    def build(cls, c, sources):
        assert sources is None  # it reads none
        return cls(c)

    @property
    def vocab(self):
        return self.c.tokens

    @property
    def word_ids(self):
        return np.arange(FIRST, self.vocab)

    @cached_property
    def tokenizer(self):
        return make_tokenizer(["<pad>", "<bos>", "<eos>", *map(str, range(self.c.digits))])

    def prompts(self, rng, size, purpose):
        digits = np.indices([self.c.digits] * 3).reshape(3, -1).T
        tokens = np.concatenate([np.full((len(digits), 1), BOS), FIRST + digits], axis=1).astype(np.int32)
        fit = [i for i, row in enumerate(tokens) if zlib.crc32(row.tobytes()) % 8 in PURPOSES[purpose]]
        chosen = tokens[rng.permutation(fit)[:size]]
        if len(chosen) < size:
            raise config.ConfigError(f"there are {len(chosen)} {purpose} prompts, not {size}: raise world.digits")
        return Prompts(chosen, np.ones_like(chosen, bool))

    def demonstrations(self, rng, size, held_out=False):
        digits = rng.integers(self.c.digits, size=(size, 3))
        prompts = np.concatenate([np.full((size, 1), BOS), FIRST + digits], axis=1).astype(np.int32)
        tokens = FIRST + np.sort(rng.integers(self.c.digits, size=(size, self.c.response)), axis=1)
        length = rng.integers(2, self.c.response + 1, size=(size, 1))
        return self.texts(prompts, tokens, length)

    def texts(self, prompts, tokens, length):
        """Responses of `length` tokens, the last one EOS."""
        slot = np.arange(self.c.response)
        tokens = np.where(slot == length - 1, EOS, np.where(slot < length, tokens, PAD)).astype(np.int32)
        return Texts(prompts, np.ones_like(prompts, bool), tokens, slot < length)

    def score(self, texts):
        return (texts.mask & (texts.tokens == FIRST + self.c.favourite)).sum(1).astype(np.float64)

    def broad(self, rng, base):
        tokens = rng.integers(FIRST, self.vocab, size=base.tokens.shape)
        return self.texts(base.prompts, tokens, rng.integers(1, self.c.response + 1, size=(len(tokens), 1)))


def check(e, c, need):
    need(c.favourite < c.digits, f"world.favourite is {c.favourite}: there are {c.digits} digits")


register(Numbers, NumbersWorld, check)


def hinted(run, rm, out):
    """A gold of this file's own kind: that of `random`, under another name."""
    return gold.random(run, rm, out)


gold.register(gold.GoldKind("hinted", hinted, "a teacher of gain {gold.gain:g} that a test made"))


def numbers(**parts) -> config.Experiment:
    """configs/smoke.py among numbers, without PPO."""
    e = checks.load(ROOT / "configs" / "smoke.py")
    return dataclasses.replace(
        e,
        name="numbers",
        world=Numbers(),
        ppo=dataclasses.replace(e.ppo, against=()),
        gold_as_proxy=config.GoldAsProxy(ppo_seeds=0),
        **parts,
    )


def execute(e: config.Experiment, root: Path):
    checks.check(e)
    run = graph.open_run(e, root, sharding.make_mesh(1))
    runner.execute(run)
    publish(run)
    return run


def test_the_whole_experiment_in_a_world_of_ones_own(tmp_path):
    run = execute(numbers(), tmp_path)
    assert "prompts" not in run.stages  # it reads no sources
    curves = from_rows(read_csv(tmp_path / "curves.csv"))
    assert all((np.diff(curve.proxy) > 0).all() for curve in curves)
    assert [curve.method for curve in curves if curve.id.against_gold] == ["bon", "tilt"]
    of_proxies = [curve for curve in curves if not curve.id.against_gold]
    assert len(of_proxies) == 3 * 2  # proxies x seeds
    assert max(curve.gold[-1] for curve in of_proxies) > 0.5  # something was learned of the favourite digit
    assert read_json(run.path("gold") / "info.json")["held_out_broad_text"]["rank_correlation"] > 0.8
    assert read_json(tmp_path / "gold.json")["policy samples"]["rank_correlation"] > 0.5
    assert load_tokenizer(run.path("sft") / "tokenizer").convert_tokens_to_ids("7") == FIRST + 7
    page = (tmp_path / "report.html").read_text()
    assert "Gold is a network regressed on the world&#x27;s annotator (" in page
    assert tags(run.experiment)[:2] == ["numbers", "numbers"]


@pytest.mark.slow
def test_a_gold_of_ones_own_is_named_in_the_report(tmp_path):
    e = numbers()
    e = dataclasses.replace(e, gold=dataclasses.replace(e.gold, kind="hinted", gain=2.0))
    run = execute(e, tmp_path)
    assert run.gold_logits == 1
    info = read_json(run.path("gold") / "info.json")
    assert (info["kind"], info["sentence"]) == ("hinted", "a teacher of gain 2 that a test made")
    assert "Gold is a teacher of gain 2 that a test made (" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"world": Numbers(favourite=10)}, "world.favourite is 10: there are 10 digits"),
        ({"world": Numbers(digits=0)}, "world.digits is 0: it must be positive"),
        ({"world": config.WorldConfig(3, 4)},
         r"world is a WorldConfig, for which no world is registered .*: there are Numbers, Text, World"),
        ({"gold": config.Gold(kind="oracle")},
         "gold.kind is 'oracle': there are annotator, random, checkpoint, people, hinted"),
        ({"gold": config.Gold(kind="people")},
         "gold.kind is 'people': a world of kind numbers has annotator, random, hinted"),
    ],
)  # fmt: skip
def test_refusals(parts, message):
    with pytest.raises(config.ConfigError, match=message) as error:
        checks.check(dataclasses.replace(numbers(), **parts))
    assert "\n" not in str(error.value)


def test_its_fields_are_options(capsys, monkeypatch, tmp_path):
    args = ["--world.favourite", "3", "--gold.kind", "random"]
    got = options.parse(RunOptions, args, "rmo run", RunOptions(numbers())).experiment
    assert got == dataclasses.replace(
        numbers(), world=Numbers(favourite=3), gold=dataclasses.replace(numbers().gold, kind="random")
    )
    with pytest.raises(config.ConfigError, match=r"perhaps --world.favourite \(int, now 0\)"):
        options.parse(RunOptions, ["--world.favorite", "3"], "rmo run", RunOptions(numbers()))
    path = tmp_path / "mine.py"
    path.write_text("from tests.worlds.test_world import numbers as experiment\n")
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(sys, "argv", ["rmo", "run", str(path), "--help"])
    with pytest.raises(SystemExit) as stop:
        main.main()
    assert not stop.value.code
    text = capsys.readouterr().out
    assert "--world.favourite" in text
    assert "The digit that the annotator counts" in text
    assert "--world.states" not in text


def test_it_can_be_planned():
    found = {program.stage for program in programs(numbers(), sharding.make_mesh(1))}
    assert found == {"sft", "gold", "samples", "comparisons", "proxies", "scores"}


def test_a_world_without_annotator_says_so():
    world = world_of(config.Text()).build(config.Text(), Path("nowhere"))
    assert not world.has_annotator
    with pytest.raises(config.ConfigError, match="the world text has no annotator"):
        world.score(None)
