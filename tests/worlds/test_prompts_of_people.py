"""The first stage of an experiment on people's data: what would stop or bend a later one is refused or kept there."""

import dataclasses

import numpy as np
import pytest

from rmo import config
from rmo.checkpoints import hf
from rmo.checkpoints.tokenizers import load_tokenizer
from rmo.experiment import graph, runner
from rmo.runtime import sharding
from rmo.runtime.files import RunError, read_json
from rmo.worlds import real_text, tokenization
from rmo.worlds.dialogue import Message
from tests.helpers.checkpoints import write_checkpoint, write_tokenizer
from tests.worlds.test_real_text import PROMPTS, REPLIES, jsonl

SYSTEM = {"role": "system", "content": "be warm"}


def asked(prompt, i):
    return [{**SYSTEM, "content": "be warm" if i % 2 else "be sunny"}, {"role": "user", "content": prompt}]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A policy and an RM with chat templates, in local directories; the RM's drops system turns."""
    directory = tmp_path_factory.mktemp("people")
    policy = write_tokenizer(write_checkpoint(directory / "policy", "llama", vocab_size=300), 300, chat=True)
    rm = write_tokenizer(write_checkpoint(directory / "rm", "qwen3", "rm", vocab_size=90), 90, chat=True)
    return directory, policy, rm


def experiment(parts, people, **world):
    directory, policy, _ = parts
    prompts = jsonl(directory / "prompts.jsonl", [{"prompt": asked(p, i)} for i, p in enumerate(PROMPTS)])
    rows = [{"prompt": asked(p, i), "completion": REPLIES[i % 4], "label": bool(i % 3)} for i, p in enumerate(PROMPTS)]
    lm = hf.shape_of(policy)
    return config.Experiment(
        name="people",
        world=config.Text(**{"prompts": prompts, "demonstrations": jsonl(directory / "shown.jsonl", rows), "prompt": 60,
                             "response": 12, "chat": True, **world}),
        policy=lm, sft=config.SFT(texts=64, epochs=1, batch=16),
        gold=config.Gold(kind="people", comparisons=jsonl(directory / "people.jsonl", people), model=lm, epochs=1, batch=16),
        comparisons=config.Comparisons(prompts=16, pairs=2),
        proxies=config.Proxies(sizes=(config.Model(width=16, layers=1, heads=2),), sweeps=(config.Sweep("main", (config.Recipe(16),)),), seeds=1, batch=8),
        bon=config.BestOfN(prompts=8, draws=64, max_n=16, points=8, chunk=16), ppo=config.PPO(prompts=16, batch=16, max_steps=2, minibatches=2), fits=config.Fits(bootstrap=10),
    )  # fmt: skip


def first_stage(e, directory):
    run = graph.open_run(e, directory, sharding.make_mesh(1))
    runner.execute(run, ("prompts",))
    return run


def people(n=64, **change):
    return [
        {"prompt": asked(p, i), "chosen": "it is warm.", "rejected": "no.", **change} for i, p in enumerate(PROMPTS[:n])
    ]


def test_system_turns_reach_the_policy(parts, tmp_path, capsys):
    ties = people(8, rejected="it is warm.")
    run = first_stage(experiment(parts, people() + ties), tmp_path)
    out = run.path("prompts")
    info = read_json(out / "info.json")
    assert info["prompts"] == info["dialogues"] == len(PROMPTS)
    assert info["demonstrations"]["texts"] == sum(bool(i % 3) for i in range(len(PROMPTS)))
    assert "undesirable answers" in info["demonstrations"]["rows"]
    assert read_json(out / "people.json")["rows"] == "64 rows; left out: 8 ties"
    said = capsys.readouterr().out
    assert "comparisons of people: 64 rows; left out: 8 ties" in said
    assert "undesirable answers" in said
    # What the policy is shown of each is its own template's text, system turn and all.
    world, tokenizer = run.world, load_tokenizer(parts[1])
    prompts = world.prompts(np.random.default_rng(0), 20, "read")
    for tokens, mask in zip(prompts.tokens, prompts.mask, strict=True):
        prompt = world.prompt_text(tokens[mask])
        assert [m.role for m in prompt] == ["system", "user"]
        text = tokenizer.apply_chat_template([m._asdict() for m in prompt], tokenize=False, add_generation_prompt=True)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == tokens[mask].tolist()
    kept = real_text.read_comparisons(out / "people.jsonl")
    assert kept[0] == ((Message("system", "be sunny"), Message("user", PROMPTS[0])), "it is warm.", "no.")


def test_what_was_read_is_not_recognised_again(tmp_path):
    """Answers that look like dialogues, transcripts or repeated prompts are written and read to the letter."""
    rows = [
        {"prompt": "\n\nHuman: a\n\nAssistant:", "chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: a\n\nAssistant: y"},
        {"prompt": "q", "chosen": " q q", "rejected": "\u2028"[:0] + "x\u2028y"},
        {"prompt": [SYSTEM, {"role": "user", "content": '[{"role": "user", "content": "q"}]'}], "chosen": "a", "rejected": "b"},
    ]  # fmt: skip
    real_text.write_comparisons(jsonl(tmp_path / "a.jsonl", rows), 0, tmp_path)
    assert real_text.read_comparisons(tmp_path / "people.jsonl") == [
        ("\n\nHuman: a\n\nAssistant:", "x", "y"),
        ("q", " q q", "x\u2028y"),
        ((Message("system", "be warm"), Message("user", '[{"role": "user", "content": "q"}]')), "a", "b"),
    ]


@pytest.mark.parametrize(
    ("rows", "world", "message"),
    [
        (
            people(),
            {"chat": False},
            r"several turns \(system, user\), which only a chat template can show: set world.chat",
        ),
        (people(), {"template": "Q: {prompt}"}, "world.template is 'Q: {prompt}', but prompts have several turns"),
        (people(8, rejected="it is warm."), {}, "nothing can be used of its 8 rows: 8 ties"),
        (people(8, chosen="it is warm. " * 40), {}, "every comparison has more than 72 tokens; raise world.response"),
        (people(8, label=True, chosen=None, rejected=None, completion="a"), {}, "no comparison: a label"),
    ],
)
def test_refused_in_the_first_stage(parts, tmp_path, rows, world, message):
    e = experiment(parts, rows, **world)
    with pytest.raises(RunError, match=message) as error:
        first_stage(e, tmp_path)
    assert "\n" not in str(error.value)


def test_plain_prompts_and_people_with_dialogues(parts, tmp_path):
    """Prompts may be plain where comparisons have several turns: gold that reads ids needs the policy's template."""
    plain = jsonl(tmp_path / "plain.jsonl", [{"prompt": p, "response": "it is warm."} for p in PROMPTS])
    e = experiment(parts, people(), chat=False, prompts=plain, demonstrations=plain)
    with pytest.raises(tokenization.TextError, match=r"people.jsonl: prompt .* has several turns"):
        first_stage(e, tmp_path / "run")


@pytest.mark.parametrize(
    ("reads", "template", "message"),
    [
        ("text", None, 'a model that reads text cannot be shown: give reads="chat"'),
        ("chat", "{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}{% endif %}{% endfor %}", "leaves out the system's turn"),
        ("chat", "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}", "refuses the messages: no system"),
    ],
)  # fmt: skip
def test_an_rm_that_cannot_be_shown_a_dialogue_is_refused_first(parts, tmp_path, reads, template, message):
    _, _, rm = parts
    if template:
        tokenizer = load_tokenizer(rm)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(rm)
    e = experiment(parts, people())
    e = dataclasses.replace(e, gold=config.Gold(kind="checkpoint", model=hf.shape_of(rm, reads=reads)))
    with pytest.raises(tokenization.TextError, match=message):
        first_stage(e, tmp_path)
