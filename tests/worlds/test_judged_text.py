"""Real text with a judge: gold learns from it, it is read along every path, and its name is in the digests."""

import dataclasses
import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from rmo import config
from rmo.artifacts.run_files import RunFiles
from rmo.artifacts.stages import Comparisons, Optimised, Samples
from rmo.config import checks
from rmo.experiment import annotator, graph, runner
from rmo.experiment.audit import audit
from rmo.experiment.efficiency import annotator_rows
from rmo.experiment.stages.comparisons import score_gap
from rmo.experiment.stages.fits import optimised_stages
from rmo.planning.programs import programs
from rmo.report.page.gold_section import labels
from rmo.runtime import sharding
from rmo.runtime.files import RunError, read_json
from rmo.worlds import judge
from rmo.worlds.comparisons import read_comparisons
from rmo.worlds.judged_text import Answers, JudgedTextWorld, said
from rmo.worlds.real_text import TextWorld
from rmo.worlds.world import Texts, world_of
from tests.helpers import judges

ROOT = Path(__file__).parents[2]
WHO, DID, WHERE = ["the cat", "a man", "the rain", "it"], ["sat on", "is in", "was near", "ran to", "ate"], ["the mat", "paris", "a tree", "the sun", "rome", "the house", "a pond", "the sea"]  # fmt: skip
PROMPTS = [f"{a} {b} {c}{d}" for a, b, c, d in itertools.product(WHO, DID, WHERE, ".?")]
REPLIES = ["no, the cat.", "a mat", "it is warm", "yes, a man", "rome", "the sea"]


def experiment(directory: Path) -> config.Experiment:
    """configs/smoke.py on a few people's texts, without PPO."""
    source = directory / "replies.jsonl"
    rows = [{"prompt": p, "response": r} for p, r in itertools.product(PROMPTS, REPLIES)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    e, replace = checks.load(ROOT / "configs" / "smoke.py"), dataclasses.replace
    return replace(
        e,
        name="judged",
        world=config.Text(
            prompts=str(source), demonstrations=str(source), tokenizer="bpe:300", template="{prompt}\n",
            prompt=28, response=12, judge="tests.helpers.judges:warmth",
        ),
        policy=replace(e.policy, vocab=300),
        sft=replace(e.sft, texts=1024, epochs=1),
        comparisons=config.Comparisons(prompts=100, pairs=4),
        proxies=replace(e.proxies, sizes=e.proxies.sizes[:1], sweeps=(config.Sweep(recipes=(config.Recipe(256),)),)),
        ppo=replace(e.ppo, against=(), prompts=64),
        gold_as_proxy=config.GoldAsProxy(ppo_seeds=0),
        fits=config.Fits(bootstrap=20),
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run but for fits and report, which are the same in every world."""
    directory = tmp_path_factory.mktemp("judged")
    e = experiment(directory)
    checks.check(e)
    run = graph.open_run(e, directory / "runs" / e.name, sharding.make_mesh(1))
    runner.execute(run, ("prompts", "sft", "gold", "samples", "comparisons", "proxies", "scores", "bon", "tilt"))
    return run


def test_gold_learns_from_the_judge_which_is_read_along_every_path(made):
    info = read_json(made.path("gold") / "info.json")
    assert info["sentence"] == "a network regressed on the judge tests.helpers.judges:warmth"
    assert info["held_out_broad_text"]["rank_correlation"] > 0.4  # which takes the prompt as well as the response
    samples = Samples(made.path("samples"))
    draws, prompt = samples.draws(2), made.world.prompt_text(samples.prompts.tokens[2][samples.prompts.mask[2]])
    by_hand = []
    for tokens, mask in zip(draws.tokens, draws.mask, strict=True):
        ids = tokens[mask].tolist()
        by_hand.append(judges.warmth(prompt, made.world.tokenizer.decode([i for i in ids if i != made.world.eos])))
    np.testing.assert_allclose(annotator.raw_pool(made, samples)[2], by_hand)
    # Best-of-1 is the initial policy, on which the judge has mean 0, as gold has.
    record = Optimised(made.path("bon/w8x1-main")).record
    assert record.annotator is not None
    assert record.annotator[:, 0].mean() == pytest.approx(0, abs=1e-6)
    # What PPO reads of its samples goes the same way.
    read = annotator.responses(made, *(np.stack([getattr(samples.draws(q), n)[:3] for q in range(8)]) for n in ("tokens", "mask")))  # fmt: skip
    np.testing.assert_allclose(read, annotator.pool(made, samples)[:, :3])
    rows = annotator_rows(list(optimised_stages(made)), 20, 0.95)  # annotator.json
    assert {row["method"] for row in rows} == {"bon", "tilt"}
    assert all(np.isfinite(row["annotator_end"]) for row in rows)
    found = audit(made)["far from the corpus (world.broad)"]
    assert found["rank_correlation"] > 0.4
    assert -1 < found["annotator_mean"] < 1


def test_a_tokenizer_of_the_runs_own_texts(made):
    tokenizer = made.world.tokenizer
    assert 259 < len(tokenizer) <= 300
    for text in ("Über, 😀!\n", " two  spaces ", *REPLIES):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert tokenizer.eos_token_id == made.world.eos == 2


def test_the_judge_must_stay_what_it_was(made, monkeypatch):
    """Its name is in the digests; what it says is compared before a process asks it."""
    e = made.experiment
    other = dataclasses.replace(e, world=dataclasses.replace(e.world, judge="tests.helpers.judges:counted"))
    theirs = graph.plan(other)
    assert all(theirs[name].path != made.stages[name].path for name in ("gold", "samples", "comparisons"))
    assert len(read_json(made.path("prompts") / judge.FILE)["probes"]) == judge.PROBES
    before = judges.warmth
    monkeypatch.setattr(judges, "warmth", lambda prompt, response: before(prompt, response) + 1)
    world = JudgedTextWorld(e.world, made.path("prompts"))
    with pytest.raises(RunError, match="since this run began: put the old one back, or begin anew"):
        world.score(world.demonstrations(np.random.default_rng(0), 2))


def test_words_do_not_depend_on_the_order_of_the_vocabulary(made, monkeypatch):
    """A fast tokenizer gives it in another order in every process, and random words are chosen by their place."""
    words = made.world.word_ids
    assert (np.diff(words) > 0).all()
    again = JudgedTextWorld(made.experiment.world, made.path("prompts"))
    turned = dict(reversed(again.tokenizer.get_vocab().items()))
    monkeypatch.setattr(type(again.tokenizer), "get_vocab", lambda _: turned)
    np.testing.assert_array_equal(again.word_ids, words)


def test_broad_text(made):
    world, rng = made.world, np.random.default_rng(0)
    base = world.demonstrations(rng, 600)
    broad = world.broad(np.random.default_rng(1), base)
    np.testing.assert_array_equal(broad.prompts, base.prompts)
    assert broad.tokens.shape == base.tokens.shape
    assert broad.tokens.dtype == np.int32
    length = broad.mask.sum(1)
    np.testing.assert_array_equal(broad.mask, np.arange(12) < length[:, None])  # no gaps
    assert not broad.tokens[~broad.mask].any()
    ends = (broad.tokens == world.eos) & broad.mask
    assert (ends.sum(1) <= 1).all()  # EOS is the last token or nowhere
    np.testing.assert_array_equal(np.argmax(ends, axis=1)[ends.any(1)], length[ends.any(1)] - 1)
    unfinished = ~ends.any(1)
    assert 0.2 < unfinished.mean() < 0.4
    again = world.broad(np.random.default_rng(1), base)
    np.testing.assert_array_equal(broad.tokens, again.tokens)
    # Collapsed, repeated and mutated text is among it, and answers to other prompts; hardly any is a demonstration.
    different = np.array([len(set(row[mask])) for row, mask in zip(broad.tokens, broad.mask, strict=True)])
    assert ((different <= 3) & (length >= 10)).sum() > 20
    rows = {(p.tobytes(), t.tobytes()) for p, t in zip(base.prompts, base.tokens, strict=True)}
    same = sum((p.tobytes(), t.tobytes()) in rows for p, t in zip(broad.prompts, broad.tokens, strict=True))
    assert same < 150
    replies = {t.tobytes() for t in base.tokens}
    assert sum(t.tobytes() in replies for t in broad.tokens) > 50
    spread = world.score(broad).std()
    assert spread > 0


def test_pieces_come_from_texts_that_the_judge_liked_or_not():
    """Every second text is liked; strict rows that go up are made of their words alone."""
    size = 4000
    tokens = np.where(np.arange(size)[:, None] % 2, 7, 5) * np.ones((1, 6), np.int64)
    score = (np.arange(size) % 2).astype(float)
    answers = Answers(tokens, np.full(size, 6), np.ones(size, bool))
    made = answers.joined(np.random.default_rng(0), score)
    liked = (made == 7).mean(1)
    assert set(np.unique(made)) == {5, 7}
    assert liked.mean() == pytest.approx(0.5, abs=0.03)  # as many up as down
    # Of 7 degrees of strictness k the upper half has 0.5 ** (1 / (1 + k)) of the pieces.
    expected = np.mean([0.5 ** (1 / (1 + k)) for k in range(7)])
    assert np.abs(liked - 0.5).mean() + 0.5 > expected - 0.02


def test_without_a_single_word():
    """Responses that are EOS alone: broad text is made of other words."""
    base = Texts(np.zeros((40, 3), np.int32), np.ones((40, 3), bool), np.full((40, 5), 2, np.int32), np.arange(5)[None] < np.ones((40, 1)))  # fmt: skip

    class World(JudgedTextWorld):
        eos = 2
        word_ids = np.arange(3, 20)

        def score(self, texts):
            return np.zeros(len(texts.tokens))

    broad = World(config.Text(prompt=3, response=5), Path("nowhere")).broad(np.random.default_rng(0), base)
    assert broad.mask.sum() > 40
    assert set(np.unique(broad.tokens)) <= {0, 2, *range(3, 20)}


def test_dialogues_as_a_judge_is_given_them():
    from rmo.worlds.dialogue import Message

    assert said((Message("user", "Why?"), Message("assistant", "So."))) == "user: Why?\nassistant: So."
    assert said("Why?") == "Why?"


def changed(e, **world):
    return dataclasses.replace(e, world=dataclasses.replace(e.world, **world))


def labelled_by_the_judge(e):
    return dataclasses.replace(e, comparisons=dataclasses.replace(e.comparisons, labelled_by="annotator"))


def confounded(e):
    sweep = config.Sweep(recipes=(config.Recipe(64, confounded=0.9),))
    return dataclasses.replace(e, proxies=dataclasses.replace(e.proxies, sweeps=(sweep,)))


def test_the_judge_labels_comparisons_itself(made):
    e = labelled_by_the_judge(made.experiment)
    run = graph.open_run(e, made.root, sharding.make_mesh(1))
    kept, other = ("prompts", "sft", "gold", "samples"), ("comparisons", "proxies/w8x1-main")
    assert all(run.path(name) == made.path(name) for name in kept)
    assert all(run.path(name) != made.path(name) for name in other)
    runner.execute(run, ("comparisons",))
    rows = read_comparisons(Comparisons(run.path("comparisons")).dataset, "train")
    p = e.world.prompt
    scores = [
        run.world.score(Texts(*(x[:, side, part] for part in (slice(p), slice(p, None)) for x in (rows.tokens, rows.mask))))
        for side in (0, 1)
    ]  # fmt: skip
    assert (scores[0] >= scores[1]).all()  # the first is the preferred one
    info, by_gold = (read_json(r.path("comparisons") / "info.json") for r in (run, made))
    assert info["labelled_by"] == "the judge tests.helpers.judges:warmth"
    assert "labelled_by" not in by_gold
    assert 0 < info["agreement_with_gold"] < by_gold["agreement_with_gold"]
    drawn = read_comparisons(Comparisons(made.path("comparisons")).dataset, "train")
    assert set(map(tuple, np.sort(rows.gold).tolist())) & set(map(tuple, np.sort(drawn.gold).tolist()))  # pairs in both
    page = SimpleNamespace(stage=lambda _: SimpleNamespace(info=lambda: info))
    assert f"{info['agreement_with_gold']:.1%} of them" in labels(cast(RunFiles, page))


def test_sampled_labels_have_the_gap_in_the_judges_standard_deviations(made):
    e = labelled_by_the_judge(made.experiment)
    rows = read_comparisons(Comparisons(made.path("comparisons")).dataset, "validation")
    gaps = {}
    for kind in ("hard", "sampled"):
        asked = dataclasses.replace(e, comparisons=dataclasses.replace(e.comparisons, labels=kind))
        run = graph.open_run(asked, made.root, sharding.make_mesh(1))
        gaps[kind] = score_gap(run, rows.tokens, rows.mask, rows.gold)
    assert np.abs(gaps["hard"]).max() > 0
    np.testing.assert_allclose(gaps["sampled"], gaps["hard"] * annotator.calibration(made).scale)
    by_gold = score_gap(made, rows.tokens, rows.mask, rows.gold)
    np.testing.assert_allclose(by_gold, -np.diff(made.gold_calibration()(rows.gold))[:, 0], atol=1e-6)


def test_refusals(made):
    e = made.experiment
    reads = dataclasses.replace(e.gold, model=dataclasses.replace(e.gold.model, checkpoint="x", reads="chat", vocab=9, length=90))  # fmt: skip
    for wrong, why in (
        (changed(e, judge=""), "gold.kind is 'annotator': real text has no annotator to learn from: give world.judge"),
        (changed(e, judge="json"), "world.judge is 'json': it must be module:function"),
        (changed(e, tokenizer="bpe:many"), "world.tokenizer is 'bpe:many': it must be bpe:SIZE, SIZE tokens, more than 259"),
        (changed(e, tokenizer="bpe:259"), "more than 259"),
        (changed(e, tokenizer="bpe:301"), "policy.vocab is 300: world.tokenizer has up to 301 tokens"),
        (dataclasses.replace(labelled_by_the_judge(changed(e, judge="")), gold=config.Gold(kind="random")), "comparisons.labelled_by is 'annotator': this world has no annotator"),
        (confounded(labelled_by_the_judge(e)), "confounded, and comparisons.labelled_by is 'annotator': the mark"),
        (dataclasses.replace(e, gold=reads), "gold.model.reads is 'chat': gold that learns from an annotator"),
    ):  # fmt: skip
        with pytest.raises(config.ConfigError, match=why) as error:
            checks.check(wrong)
        assert "\n" not in str(error.value)


def test_too_few_demonstrations_for_gold_are_said_by_the_first_stage(made, tmp_path):
    e = dataclasses.replace(made.experiment, gold=dataclasses.replace(made.experiment.gold, texts=80_000))
    run = graph.open_run(e, tmp_path, sharding.make_mesh(1))
    with pytest.raises(config.ConfigError, match=r"20000 texts are asked for .*a quarter of gold.texts"):
        runner.execute(run, ("prompts",))


def test_which_world_and_its_plan(made):
    assert world_of(config.Text()) is TextWorld
    assert world_of(made.experiment.world) is JudgedTextWorld
    assert not TextWorld.has_annotator
    stages = {program.stage for program in programs(made.experiment, sharding.make_mesh(1))}
    assert "gold" in stages
    random = dataclasses.replace(made.experiment, gold=dataclasses.replace(made.experiment.gold, kind="random"))
    assert [p.name for p in programs(random, sharding.make_mesh(1)) if p.stage == "gold"] == ["draw 38"]
