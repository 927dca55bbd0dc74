"""People's chats as rows, VADER as a judge, and what is said where their packages are missing."""

import dataclasses
import importlib.resources
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from rmo import config
from rmo.config import checks
from rmo.experiment import graph, runner
from rmo.runtime import sharding
from rmo.runtime.files import read_json
from rmo.worlds import chitchat, containers, judge
from rmo.worlds.containers import SourceError

ROOT = Path(__file__).parents[2]


def test_turns_become_prompts_and_replies(monkeypatch):
    monkeypatch.setattr(chitchat, "turns", lambda: iter([["a b", "c d", "", "e"], ["f"], []]))
    assert list(chitchat.replies()) == [{"prompt": "a b", "response": "c d"}]
    long = " ".join(["w"] * 17)
    monkeypatch.setattr(chitchat, "turns", lambda: iter([["a", "one two", long, "x y", "z"]]))
    assert list(chitchat.short_replies()) == [{"prompt": "a", "response": "one two"}]


def test_the_package_has_what_its_readme_says():
    pytest.importorskip("chitchat_dataset")
    chats = list(chitchat.turns())
    assert len(chats) == 7168
    assert all("\n" not in turn and turn == turn.strip() for chat in chats[:500] for turn in chat)


def test_valence():
    pytest.importorskip("vaderSentiment")
    found = judge.judge_of("rmo.worlds.valence:valence")([("a", "I love it!"), ("a", "I hate it."), ("b", "I love it!"), ("a", "")])  # fmt: skip
    assert found[0] > 0.5
    assert found[1] < -0.3
    assert found[2] == found[0]
    assert found[3] == 0


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    for name in ("vaderSentiment", "vaderSentiment.vaderSentiment"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "rmo.worlds.valence", raising=False)
    with pytest.raises(config.ConfigError, match=r"the package vaderSentiment is missing: EXTRAS=dev,chat") as error:
        judge.judge_of("rmo.worlds.valence:valence")
    assert "\n" not in str(error.value)

    def files(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib.resources, "files", files)
    with pytest.raises(SourceError, match=r"the package chitchat-dataset is missing: EXTRAS=dev,chat") as error:
        next(containers.read("python:rmo.worlds.chitchat:short_replies"))
    assert "\n" not in str(error.value)


def test_the_chat_configs_smallest_cut(tmp_path, monkeypatch):
    """People's chats through the first stages: tokenizer, policy and gold."""
    pytest.importorskip("chitchat_dataset")
    pytest.importorskip("vaderSentiment")
    every = list(itertools.islice(chitchat.turns(), 400))
    monkeypatch.setattr(chitchat, "turns", lambda: iter(every))
    e, replace = checks.load(ROOT / "configs" / "chat_small.py"), dataclasses.replace
    assert "not what people prefer" in e.note
    e = replace(
        e,
        policy=replace(e.policy, width=16, layers=1),
        sft=replace(e.sft, texts=512, epochs=1, batch=64),
        gold=replace(e.gold, model=replace(e.gold.model, width=16, layers=1), texts=1200, epochs=1),
        comparisons=replace(e.comparisons, prompts=64),
        proxies=replace(e.proxies, trunk=replace(e.proxies.trunk, texts=512)),
        bon=replace(e.bon, prompts=8),
        ppo=replace(e.ppo, prompts=64),
    )
    run = graph.open_run(e, tmp_path, sharding.make_mesh(1))
    runner.execute(run, ("prompts", "sft", "gold"))
    info = read_json(run.path("gold") / "info.json")
    assert info["sentence"] == "a network regressed on the judge rmo.worlds.valence:valence"
    shown = run.world.demonstrations(np.random.default_rng(0), 200)
    score = run.world.score(shown)
    assert score.min() >= -1
    assert score.max() <= 1
    assert 0.1 < score.mean() < 0.5  # people are friendly
    assert (shown.tokens[shown.mask] == run.world.eos).sum() > 180  # most replies end in time
