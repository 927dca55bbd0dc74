"""A chat template shows all of a dialogue, or the dialogue is refused: nothing is rendered as nothing or as Python."""

import pytest

from rmo.checkpoints.tokenizers import load_tokenizer
from rmo.worlds import templates, tokenization
from rmo.worlds.dialogue import Message
from tests.helpers.checkpoints import write_tokenizer

DIALOGUE = (Message("system", "be warm"), Message("user", " the cat "), Message("assistant", "it sat"))
LOOP = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
SHOWN = "[system]be warm[user] the cat [assistant]it sat"
GOOD = {
    "plain": (LOOP, SHOWN),
    "trimmed": (LOOP.replace("m['content']", "m['content'] | trim"), "[system]be warm[user]the cat[assistant]it sat"),
    "content in parts": (
        "{% for m in messages %}[{{ m.role }}]{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}", SHOWN
    ),
    "asks for what is not there": (
        "{% for m in messages %}{% if m.tool_calls %}!{% endif %}{% if m['name'] is defined %}?{% endif %}"
        "{{ m.content }}{{ m.name | default('') }}|{% endfor %}{{ cls_token }}",
        "be warm| the cat |it sat|",
    ),
    "the system in the user's turn": (
        "{% set s = messages[0]['content'] %}{% for m in messages[1:] %}[{{ m['role'] }}]{% if loop.first %}{{ s }}/{% endif %}"
        "{{ m['content'] }}{% endfor %}",
        "[user]be warm/ the cat [assistant]it sat",
    ),
    "transformers' own marks": (
        "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %};{% endfor %}",
        "be warm; the cat ;it sat;",
    ),
}  # fmt: skip
BAD = {
    "no template": (None, "no chat template"),
    "drops the system": (
        LOOP.replace("{{ m['content'] }}", "{% if m['role'] != 'system' %}{{ m['content'] }}{% endif %}"),
        "leaves out the system's turn 'be warm'",
    ),
    "only the last turn": ("{{ messages[-1]['content'] }}", "leaves out the system's turn"),
    "other names": ("{% for m in messages %}{{ m['from'] }}: {{ m['value'] }}{% endfor %}", "leaves out the system's turn"),
    "a name beside": (LOOP.replace("m['role']", "m['role'] }}{{ m['name']"), "prints name, which messages of role and content do not have"),
    "refuses the system": (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + LOOP,
        "refuses the messages: System role not supported",
    ),
    "no Jinja": ("{% for %}", "refuses the messages"),
    "adds to a text": ("{% for m in messages %}{{ m['content'] + 1 }}{% endfor %}", "refuses the messages"),
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("t"), chat=True))


@pytest.mark.parametrize("name", GOOD)
def test_templates_that_show_everything(tokenizer, name):
    tokenizer.chat_template, wanted = GOOD[name]
    assert templates.render(tokenizer, DIALOGUE, answer=True) == wanted


@pytest.mark.parametrize("name", BAD)
def test_templates_that_do_not(tokenizer, name):
    tokenizer.chat_template, message = BAD[name]
    with pytest.raises(templates.TemplateError, match=message) as error:
        templates.render(tokenizer, DIALOGUE, answer=True)
    assert "\n" not in str(error.value)
    with pytest.raises(tokenization.TextError, match=rf"here: .*{message}"):
        tokenization.encode(tokenizer, {"messages": [m._asdict() for m in DIALOGUE]}, "here", 99, "", True)


def test_thoughts_may_be_left_out_and_a_turn_left_open(tokenizer):
    tokenizer.chat_template = LOOP.replace("m['content']", "m['content'].split('</think>')[-1]")
    said = (*DIALOGUE[:2], Message("assistant", "<think>hm</think>it sat"))
    assert templates.render(tokenizer, said, answer=True) == SHOWN
    assert templates.render(tokenizer, DIALOGUE[:2], answer=False) == "[system]be warm[user] the cat [assistant]"


def test_messages_of_any_spelling_have_the_same_ids(tokenizer):
    tokenizer.chat_template = LOOP
    other = {"system": "system", "user": "human", "assistant": "gpt"}
    whole = [m._asdict() for m in DIALOGUE]
    rows = [
        {"messages": whole},
        {"messages": [{"from": other[m.role], "value": m.content} for m in DIALOGUE]},
        {"messages": [{"role": m.role, "content": [{"type": "text", "text": m.content}]} for m in DIALOGUE]},
        {"prompt": whole[:2], "response": "it sat"},
        {"messages": whole[:2], "response": "it sat"},
        {"prompt": DIALOGUE[:2], "response": "it sat"},
    ]
    ids = [tokenization.encode(tokenizer, row, "here", 99, "", chat=True) for row in rows]
    assert ids.count(ids[0]) == len(rows)
    assert ids[0] == tokenizer(SHOWN, add_special_tokens=False)["input_ids"]
    with pytest.raises(tokenization.TextError, match=r"here: messages, turn 1, is of None"):
        tokenization.encode(tokenizer, {"messages": [{"role": None, "text": "a"}]}, "here", 99, "", chat=True)
    transcript = {"prompt": "\n\nHuman: the cat\n\nAssistant:", "response": "it sat"}
    ids = tokenization.encode(tokenizer, transcript, "here", 99, "", chat=True)
    assert ids == tokenizer("[user]the cat[assistant]it sat", add_special_tokens=False)["input_ids"]
