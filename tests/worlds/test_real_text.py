"""The experiment on real checkpoints: `configs/pythia.py` scaled down, every part from a local directory."""

import dataclasses
import functools
import itertools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from rmo import config
from rmo.artifacts.stages import Optimised, Proxies, Scores
from rmo.checkpoints import hf, saved_model, tokenizers
from rmo.config import checks
from rmo.experiment import gold, graph, runner
from rmo.experiment.run import Run
from rmo.logs import score_and_sample
from rmo.methods.ppo import loop as ppo_loop
from rmo.models import bulk_scoring, reader, scoring
from rmo.rewards.calibration import soft_label_scale
from rmo.runtime import checkpointer, sharding
from rmo.runtime.files import RunError, read_json, read_npz
from rmo.worlds import comparisons, real_text, sources, tokenization
from tests.helpers.checkpoints import write_checkpoint, write_tokenizer

ROOT = Path(__file__).parents[2]
WHO, WHAT, WHERE = ["the cat", "a man", "the rain", "it"], ["sat on", "is in", "was near", "ran to", "ate"], ["the mat", "paris", "a tree", "the sun", "rome", "the house", "a pond", "the sea"]  # fmt: skip
PROMPTS = [f"{a} {b} {c}{d}" for a, b, c, d in itertools.product(WHO, WHAT, WHERE, [".", "?"])]
OTHER = ("some other words: rain, sun, tree, house, pond.", "was a man near rome?", "no. he ran to the sea and ate.")
REPLIES = ["it is warm and sunny.", "the mat.", "what is the weather in paris?", "no, the cat sat."]


def jsonl(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def small(directory: Path) -> config.Experiment:
    """`configs/pythia.py` on checkpoints of a thousandth of a thousandth of their size: a Llama policy with a BPE
    tokenizer, a Qwen3 gold with another one and a chat template, proxies of Pythia's shape."""
    policy = write_tokenizer(write_checkpoint(directory / "policy", "llama", vocab_size=300), 300, pad=False)
    gold = write_tokenizer(
        write_checkpoint(directory / "gold", "qwen3", "rm", vocab_size=90), 90, chat=True, texts=OTHER
    )
    small = write_tokenizer(
        write_checkpoint(directory / "small", "gpt_neox", vocab_size=300, hidden_size=16, num_attention_heads=2), 300
    )
    write_tokenizer(small, 300, pad=False)
    large = write_tokenizer(write_checkpoint(directory / "large", "gpt_neox", vocab_size=300), 300, pad=False)
    other = write_tokenizer(
        write_checkpoint(directory / "other", "gpt_neox", vocab_size=80, hidden_size=24, num_attention_heads=2),
        80,
        texts=OTHER,
    )
    prompts = jsonl(directory / "prompts.jsonl", [{"prompt": p} for p in PROMPTS])
    shown = [{"instruction": p, "output": REPLIES[i % len(REPLIES)]} for i, p in enumerate(PROMPTS)]
    e = checks.load(ROOT / "configs" / "pythia.py")
    replace = dataclasses.replace
    return replace(
        e,
        name="pythia_small",
        world=replace(
            e.world, prompts=prompts, demonstrations=jsonl(directory / "shown.jsonl", shown),
            template="say {prompt} then ", prompt=28, response=12,
        ),
        policy=hf.shape_of(policy),
        sft=replace(e.sft, texts=192, epochs=2, batch=32, optimizer=config.Optimizer(lr=1e-3)),
        gold=replace(e.gold, model=hf.shape_of(gold, reads="chat")),
        comparisons=replace(e.comparisons, prompts=64),
        proxies=replace(
            e.proxies, sizes=(hf.shape_of(small), hf.shape_of(large), hf.shape_of(other, reads="text")),
            sweeps=(config.Sweep("main", (config.Recipe(192),)),), batch=32, optimizer=config.Optimizer(lr=2e-2),
        ),
        bon=config.BestOfN(prompts=8, draws=64, max_n=16, points=8, chunk=64),
        ppo=replace(
            e.ppo, against=(config.Against("main", sizes=(2,)),), kl_max=1.0, d_step=0.3, max_steps=12, prompts=32,
            batch=32, epochs=1, minibatches=2, policy_optimizer=config.Optimizer(lr=3e-4, schedule="constant"),
        ),
        fits=config.Fits(bootstrap=50),
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(run, experiment) with every stage done."""
    directory = tmp_path_factory.mktemp("real")
    e = small(directory)
    checks.check(e)
    run = graph.open_run(e, directory / "runs" / e.name, sharding.make_mesh(1))
    runner.execute(run)
    return run


def test_every_stage(made):
    assert all(made.done(name) for name in made.stages)
    info = read_json(made.path("prompts") / "info.json")
    assert info["prompts"] == len(PROMPTS)
    assert info["demonstrations"]["texts"] == len(PROMPTS)
    purposes = {
        p: made.world.prompts(np.random.default_rng(0), 20, p).tokens for p in ("read", "optimise", "comparisons")
    }
    for a, b in itertools.combinations(purposes.values(), 2):
        assert not {row.tobytes() for row in a} & {row.tobytes() for row in b}
    records = {name: Optimised(made.path(name)).record for name in made.stages if name.startswith(("bon/", "ppo/"))}
    assert len(records) == 5  # best-of-n of three proxies and of gold, PPO of one proxy
    for name, record in records.items():
        assert np.isfinite(record.gold).all()
        assert record.gold.std() > 0
        if name.startswith("ppo"):
            # The policy with itself, on a checkpoint's weights.
            assert record.kl[:, 0] == pytest.approx(0, abs=1e-6)
            ratio = record.diagnostics["first_ratio"][record.real & (record.step_or_n > 0)]
            assert len(ratio)
            assert ratio == pytest.approx(1, abs=1e-5)
    page = (made.path("report") / "report.html").read_text()
    assert "Gold reads text through a tokenizer of its own" in page
    assert "the checkpoint " in page
    shown = read_json(made.path("comparisons") / "info.json")["gold_through_text"]
    assert 0 <= shown["changed"] <= 1
    assert shown["tokens"] > 1  # a smaller vocabulary and a template


def test_gold_is_what_rmo_score_says(made, tmp_path):
    """Gold along the path is the checkpoint's own score of the text, prompt and all, through its chat template."""
    gold = Path(made.experiment.gold.model.checkpoint)
    prompts = read_npz(made.path("samples") / "prompts.npz")
    draws = read_npz(made.path("samples") / "draws" / "00003.npz")
    policy = made.world.tokenizer
    prompt = made.world.texts[prompts["tokens"][3][prompts["mask"][3]].tobytes()]
    assert prompt in PROMPTS
    rows, module, params = [], *hf.load_reward_model(gold)
    own = tokenizers.load_tokenizer(gold)
    for i, (tokens, mask) in enumerate(zip(draws["tokens"][:6], draws["mask"][:6], strict=True)):
        ids = tokens[mask].tolist()
        said = policy.decode(ids[:-1] if ids[-1] == policy.eos_token_id else ids)
        rows.append({"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": said}]})
        spelled = own.apply_chat_template(rows[-1]["messages"], tokenize=False)
        ids = np.array(own(spelled, add_special_tokens=False)["input_ids"])[None]
        alone = float(scoring.score(module, params, ids, np.ones_like(ids, bool))[0])
        assert alone == pytest.approx(draws["gold"][i], abs=1e-4)
    path = Path(jsonl(tmp_path / "t.jsonl", rows))
    score_and_sample.score(str(gold), path, tmp_path / "out.jsonl", 2, chat=True)
    got = [json.loads(line)["score"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(got, draws["gold"][:6], atol=1e-4)
    # A stage's directory is a model like any other, with its own tokenizer.
    score_and_sample.score(str(made.path("gold")), path, tmp_path / "again.jsonl", 2, chat=True)
    again = [json.loads(line)["score"] for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(again, got, atol=1e-5)


def test_ids_are_passed_where_the_vocabulary_is_shared(made):
    assert made.reader("proxies/w32x2-main", made.experiment.proxies.sizes[1]) is reader.IDS
    held = comparisons.read_comparisons(made.path("comparisons") / "dataset", "validation")
    module, params, _ = saved_model.load_reward_model(made.path("proxies/w32x2-main"), member=1)
    kept = read_npz(made.path("proxies/w32x2-main") / "validation.npz")["scores"][1]
    got = bulk_scoring.score_all(module, params, held.tokens[:, 0], held.mask[:, 0], 64)
    np.testing.assert_allclose(got, kept[:, 0], atol=1e-4)


def test_the_way_through_text_is_the_same_inside_a_program(made):
    """One function on the host, one inside jit and vmap; too long a text loses its beginning and is counted."""
    shape = made.experiment.proxies.sizes[2]
    read = made.reader("proxies/w24x2-main", shape)
    held = comparisons.read_comparisons(made.path("comparisons") / "dataset", "validation")
    tokens, mask = held.tokens[:6].reshape(2, 6, -1), held.mask[:6].reshape(2, 6, -1)
    host_tokens, host_mask = read.host(*(x.reshape(12, -1) for x in (tokens, mask)))
    jit_tokens, jit_mask = jax.jit(jax.vmap(read))(tokens, mask)
    width = host_tokens.shape[1]
    assert (np.asarray(jit_tokens).reshape(12, -1)[:, :width] == host_tokens).all()
    assert (np.asarray(jit_mask).reshape(12, -1)[:, :width] == host_mask).all()
    assert not np.asarray(jit_mask).reshape(12, -1)[:, width:].any()
    own = read.tokenizer
    first = own.decode(host_tokens[0][host_mask[0]])
    prompt = made.world.texts[held.tokens[0, 0, :28][held.mask[0, 0, :28]].tobytes()]
    assert first.startswith(f"say {prompt} then ")
    short = dataclasses.replace(read, length=8)
    some, some_mask = jax.jit(lambda *x: short(*x))(tokens[0], mask[0])
    assert np.asarray(short.cut(some_mask)).all()
    assert not np.asarray(read.cut(jit_mask)).any()
    assert (np.asarray(some) == [row[-8:] for row in read.encode(tokens[0], mask[0])]).all()  # the end is kept


def test_drift_counts_what_it_says(made):
    """Ids that the tokenizer would not have chosen are counted; those of plain text are not."""
    read = made.reader("gold", made.experiment.gold.model)
    policy, world = made.world.tokenizer, made.world
    prompts = read_npz(made.path("samples") / "prompts.npz")
    natural = policy("the cat sat on the mat.", add_special_tokens=False)["input_ids"]
    letters = [i for c in "the" for i in policy(c, add_special_tokens=False)["input_ids"]]
    assert len(policy("the", add_special_tokens=False)["input_ids"]) < len(letters)
    responses, mask = tokenization.pad([natural, [*letters, world.eos]], world.c.response, left=False)
    tokens = np.concatenate([prompts["tokens"][:2], responses], 1)
    found = read.drift(tokens, np.concatenate([prompts["mask"][:2], mask], 1))
    assert found["changed"] == 0.5
    assert found["not_text"] == 0


@pytest.mark.slow
def test_killed_and_continued_is_the_same(made, tmp_path):
    """Interrupted in the middle of PPO through text and continued from its checkpoint, it ends with the same numbers."""
    e, root = made.experiment, tmp_path / "runs"
    shutil.copytree(made.root, root / e.name)
    stage = made.stages["ppo/w24x2-main"].path
    before = read_npz(made.root / stage / "record.npz")
    shutil.rmtree(root / e.name / stage)
    run = graph.open_run(e, root / e.name, sharding.make_mesh(1))
    real, calls = ppo_loop.read, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 5:  # the first is a trace for shapes; reads 0 to 2 are done, two of them saved
            raise KeyboardInterrupt
        return real(*args)

    every = functools.partial(ppo_loop.train_ppo, every=2)
    restored, restore = [], checkpointer.Checkpoints.restore

    def watched(self, state):
        out = restore(self, state)
        restored.append(out[1])
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo_loop, "read", interrupted)
        patch.setattr(ppo_loop, "train_ppo", every)
        patch.setattr(checkpointer.Checkpoints, "restore", watched)
        with pytest.raises(KeyboardInterrupt):
            runner.execute(run, ("ppo/w24x2-main",))
        patch.setattr(ppo_loop, "read", real)
        runner.execute(run, ("ppo/w24x2-main",))
    assert restored == [0, 2]
    runner.execute(run, ("ppo/w24x2-main",))
    after = read_npz(root / e.name / stage / "record.npz")
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)


def people(made, directory: Path, **gold) -> Run:
    """A run whose gold learns from people who like warm weather (and, otherwise, toss a coin)."""
    rng = np.random.default_rng(0)
    rows = []
    for prompt in PROMPTS:
        pair = [" ".join(rng.choice(["the", "cat", "sat", "on", "mat"], rng.integers(1, 4))) for _ in range(2)]
        good = int(rng.integers(2))
        pair[good] += " warm"
        rows.append({"prompt": prompt, "chosen": pair[good], "rejected": pair[1 - good]})
    rows.append({"prompt": "x", "chosen": 3, "rejected": "y"})
    replace, e = dataclasses.replace, made.experiment
    source = jsonl(directory / "people.jsonl", rows)
    g = config.Gold(
        **{"kind": "people", "comparisons": source, "epochs": 4, "batch": 16,
           "model": config.Model(width=32, layers=1, heads=2), "optimizer": config.Optimizer(lr=1e-2), **gold}
    )  # fmt: skip
    small = replace(e.proxies, sizes=e.proxies.sizes[1:2], sweeps=(config.Sweep("main", (config.Recipe(96),)),))
    against = replace(e.ppo, against=(config.Against("main"),), max_steps=8, patience=2)
    e = replace(
        e, name="people", gold=g, sft=replace(e.sft, texts=0), proxies=small, ppo=against, fits=config.Fits(50, 1e-3)
    )
    checks.check(e)
    return graph.open_run(e, directory / "runs", sharding.make_mesh(1))


@pytest.mark.slow
@pytest.mark.parametrize("through", ["ids", "text"])
def test_gold_from_people(made, tmp_path, through):
    more = {}
    if through == "text":
        checkpoint = made.experiment.proxies.sizes[2].checkpoint
        more = {"model": hf.shape_of(checkpoint, reads="text")}
    run = people(made, tmp_path, **more)
    runner.execute(run, () if through == "ids" else ("prompts", "sft", "gold", "samples"))
    if through == "ids":  # to the report, the policy being its checkpoint and gold's scores logits
        assert "held-out comparisons it chose as people did" in (run.path("report") / "report.html").read_text()
        sigma = 1 / read_json(run.path("samples") / "calibration.json")["scale"]
        assert run.gold_logits == pytest.approx(sigma)
        found = Scores(run.path("scores/w32x2-main")).calibrations()[0]
        kept = Proxies(run.path("proxies/w32x2-main")).validation()
        gap, gold_gap = (x[..., 0] - x[..., 1] for x in (kept.scores[0], kept.gold))
        # Paper section 2.2: fitted on gold's raw gaps, then in units of its standard deviation.
        assert found.calibration.scale == pytest.approx(soft_label_scale(gap, gold_gap) / sigma, rel=1e-3)
    info = read_json(run.path("gold") / "info.json")
    found = info["held_out_people"]
    low, high = found["accuracy_interval"]
    assert 0.9 < low <= found["accuracy"] <= high
    assert info["comparisons"]["held_out"] + info["comparisons"]["train"] == len(PROMPTS)
    assert "1 rows dropped, the first" in info["comparisons"]["rows"]
    assert found["calibration_error"] < 0.1
    assert found["longer_wins"] > 0.5  # a word more
    # The policy is its checkpoint, untouched.
    policy = hf.load_language_model(made.experiment.policy.checkpoint)[1]
    kept = run.load("sft", run.lm())
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), policy, kept)))


def test_agreement_with_people_by_hand():
    scores = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 1.0], [5.0, 0.0]])
    lengths = np.array([[3, 1], [2, 4], [5, 5], [1, 2]])
    got = gold.agreement(scores, lengths, np.array([0, 0, 1, 2]), np.random.default_rng(0))
    assert got["accuracy"] == pytest.approx(2.5 / 4)
    assert got["longer_wins"] == pytest.approx(1 / 3)
    assert got["scores_longer"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {"bon": dataclasses.replace(e.bon, prompts=300)}, "bon.prompts is 300, but of the 320 prompts"),
        (lambda e: {"world": dataclasses.replace(e.world, prompts="none.jsonl")}, "no such file"),
        (lambda e: {"world": dataclasses.replace(e.world, tokenizer=e.proxies.sizes[2].checkpoint)},
         "has other ids than the tokenizer of"),
        (lambda e: {"gold": dataclasses.replace(e.gold, kind="people", comparisons="none.jsonl")}, "no such file"),
        (lambda e: {"proxies": dataclasses.replace(e.proxies, sizes=(*e.proxies.sizes[:2], dataclasses.replace(e.proxies.sizes[2], reads="ids")))},
         "has another vocabulary than the policy"),
        (lambda e: {"world": dataclasses.replace(e.world, prompt=2)}, "all 320 prompts are longer than 2 tokens"),
        (lambda e: {"policy": dataclasses.replace(e.policy, layers=7)}, "has layers 3, not 7: take the fields"),
        (lambda e: {"gold": dataclasses.replace(e.gold, model=dataclasses.replace(e.gold.model, reads="ids"))},
         "has another vocabulary than the policy: give reads="),
        (lambda e: {"gold": dataclasses.replace(e.gold, model=dataclasses.replace(e.proxies.sizes[2], reads="chat"))},
         "has no chat template"),
    ],
)  # fmt: skip
def test_refusals(made, tmp_path, change, message):
    e = dataclasses.replace(made.experiment, sft=dataclasses.replace(made.experiment.sft, texts=0))
    run = graph.open_run(dataclasses.replace(e, **change(e)), tmp_path, sharding.make_mesh(1))
    with pytest.raises((RunError, config.ConfigError), match=message) as error:
        runner.execute(run, ("prompts",))  # before anything is trained
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": ""}, "world.prompts is empty"),
        ({"template": "Q:"}, "must hold {prompt}"),
        ({"demonstrations": ""}, "world.demonstrations is empty"),
        ({"prompt": 90, "response": 90}, "prompt and response need 180 tokens"),
    ],
)
def test_refused_before_anything_runs(made, change, message):
    e = made.experiment
    with pytest.raises(config.ConfigError, match=message):
        checks.check(dataclasses.replace(e, world=dataclasses.replace(e.world, **change)))
    with pytest.raises(config.ConfigError, match=r"real text has no annotator to learn from: give world\.judge"):
        checks.check(dataclasses.replace(e, gold=config.Gold()))
    with pytest.raises(config.ConfigError, match=r"world is synthetic, but a model has checkpoint"):
        checks.check(dataclasses.replace(e, world=config.World()))


def test_pad_that_equals_eos_or_is_missing_changes_nothing(made, tmp_path):
    """The policy's tokenizer here has no pad; giving it one, eos or another, on either side, changes neither prompts and
    responses nor what a gold with such a tokenizer is shown."""
    world, held = made.world, comparisons.read_comparisons(made.path("comparisons") / "dataset", "validation")
    kept = {name: read_npz(made.path("prompts") / f"{name}.npz") for name in ("prompts", "demonstrations")}
    read = made.reader("gold", made.experiment.gold.model)
    shown = read.host(held.tokens[:8, 0], held.mask[:8, 0])
    for pad, side in itertools.product(("<eos>", "<pad>"), ("left", "right")):
        tokenizer = tokenizers.load_tokenizer(made.path("prompts") / "tokenizer")
        tokenizer.pad_token, tokenizer.padding_side = pad, side
        real_text.write(world.c, tokenizer, world.vocab, tmp_path / pad)
        for name, rows in kept.items():
            again = read_npz(tmp_path / pad / f"{name}.npz")
            assert all((again[column] == values).all() for column, values in rows.items())
        own = tokenizers.load_tokenizer(made.path("gold") / "tokenizer")
        own.pad_token, own.padding_side = pad, side
        again = dataclasses.replace(read, tokenizer=own).host(held.tokens[:8, 0], held.mask[:8, 0])
        assert all((a == b).all() for a, b in zip(again, shown, strict=True))


def test_odd_text_is_kept_or_named(made, tmp_path):
    """Characters at which Python splits lines stay inside their prompt; what is no text is a malformed row."""
    odd = ["the cat\u2028sat", "a\x0bman\x85 ran", "it is\x0cin paris"]
    rows = [{"prompt": p} for p in [*odd, *PROMPTS[:40]]]
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"prompt": "\\ud83d"}\n')
    c = dataclasses.replace(made.world.c, prompts=str(path), demonstrations="", tolerance=0.05)
    info = real_text.write(c, made.world.tokenizer, made.world.vocab, tmp_path / "out")
    assert "1 rows dropped" in info["rows"]
    assert "line 44: prompt is no text" in info["rows"]
    assert set(odd) <= set(real_text.TextWorld(c, tmp_path / "out").texts.values())


def test_dialogues_of_messages():
    user, good, bad = (
        {"role": r, "content": c} for r, c in (("user", "q"), ("assistant", "good"), ("assistant", "bad"))
    )
    assert sources.comparisons_of({"chosen": [user, good], "rejected": [user, bad]}) == [("q", "good", "bad")]
    (kept,) = sources.comparisons_of({"prompt": [user, good, user], "chosen": "a", "rejected": "b"})
    assert [(turn.role, turn.content) for turn in kept.prompt] == [("user", "q"), ("assistant", "good"), ("user", "q")]
    assert kept[1:] == ("a", "b")
    with pytest.raises(sources.Malformed, match="ends with a turn of the user"):
        sources.comparisons_of({"chosen": [user, good, user], "rejected": [user, bad, user]})
    with pytest.raises(sources.Malformed, match="the user's is needed"):
        sources.comparisons_of({"chosen": [user, good], "rejected": [good, bad]})


def test_readers_are_told_apart(made):
    """A jitted function must never take one reader for another."""
    read = made.reader("gold", made.experiment.gold.model)
    assert read != dataclasses.replace(read, vocab=7)
    assert len({read, dataclasses.replace(read), reader.IDS}) == 3


def test_a_checkpoint_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(RunError, match="has no tokenizer"):
        tokenizers.load_tokenizer(write_checkpoint(tmp_path / "c", "gpt2"))


def test_shape_and_trunk_of_a_checkpoint(made):
    shape = made.experiment.proxies.sizes[0]
    assert hf.differences(shape, hf.shape_of(shape.checkpoint)) == ""
    assert hf.differences(dataclasses.replace(shape, vocab=3), shape) == "vocab 300, not 3"
    module, params = hf.load_trunk(shape.checkpoint, jax.random.key(0))
    _, other = hf.load_trunk(shape.checkpoint, jax.random.key(1))
    _, lm = hf.load_language_model(shape.checkpoint)
    assert (params["head"]["kernel"] != other["head"]["kernel"]).any()
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params["trunk"], lm["trunk"]))
    assert params["head"]["kernel"].std() == pytest.approx((module.shape.width + 1) ** -0.5, rel=0.5)
    trunk, _ = hf.load_trunk(made.experiment.gold.model.checkpoint, jax.random.key(0))  # of an RM: its head is dropped
    assert trunk.shape.width == 32


def test_sources_from_lists_and_the_hub(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text(json.dumps([{"instruction": "add", "input": "1 and 1", "output": "2"}, 7]))
    found = sources.load(tmp_path / "a.json", sources.demonstration_of, tolerance=0.5)
    assert found.rows == [("add\n1 and 1", "2")]
    assert found.dropped[0][0].endswith("a.json row 2")
    (tmp_path / "data").mkdir()
    jsonl(tmp_path / "data" / "x-1.jsonl", [{"prompt": "one", "response": "1"}])
    jsonl(tmp_path / "data" / "x-0.jsonl", [{"prompt": "zero", "chosen": "0", "rejected": "1"}])
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **kw: asked.append((name, kw)) or str(tmp_path)
    )
    found = sources.load("hub:owner/set/data/x-*.jsonl", sources.demonstration_of)
    assert found.rows == [("zero", "0"), ("one", "1")]
    assert asked[0] == ("owner/set", {"repo_type": "dataset", "revision": None, "allow_patterns": ["data/x-*.jsonl"]})
    with pytest.raises(sources.SourceError, match="has no such files"):
        sources.load("hub:owner/set/none/*.parquet", sources.demonstration_of)
    with pytest.raises(sources.SourceError, match="give OWNER/NAME/FILES"):
        sources.load("hub:owner/set", sources.demonstration_of)
