"""What the trainers' columns are: refused by a line that names the usable one, and as the guide of the README says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rmo.logs import reading, trainers
from rmo.logs.columns import Columns
from rmo.logs.trainers import TRAINERS

README = Path(trainers.__file__).with_name("README.md").read_text()
UNITS = {"sequence": "sum over a response", "token": "mean per token", "no": "none: "}


def name_of(wanted):
    """A column's name as a log has it, for one that stands for several."""
    return wanted.replace("*", "x")


def log_of(path, trainer, **more):
    """Ten rows of a trainer's log with all its marks, its KL columns and gold."""
    one = TRAINERS[trainer]
    names = [name_of(name) for name in (*one.marks, *one.proxy[:1], *one.length[:1])]
    rows = []
    for i in range(10):
        row = dict.fromkeys(names, 1.0) | {name_of(name): 0.1 * i for name in one.kl}
        row |= {name: i for name in one.step if name in row}
        rows.append({**row, **more, "step": i, "eval/gold": i**0.5})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def columns_of(*units):
    return [(trainer, name) for trainer, one in TRAINERS.items() for name, kl in one.kl.items() if kl.unit in units]


@pytest.mark.parametrize(("trainer", "name"), columns_of("no"))
def test_what_is_no_kl_is_refused_by_a_line_that_names_the_usable_one(tmp_path, trainer, name):
    path = log_of(tmp_path / "a.jsonl", trainer)
    with pytest.raises(reading.LogError) as error:
        reading.read([path], Columns(kl=name_of(name)))
    message = str(error.value)
    usable = [other for other, kl in TRAINERS[trainer].kl.items() if kl.unit != "no"]
    if usable:
        assert f"give --kl {name_of(usable[0])} instead" in message
    else:
        assert "give instead the sum over a response of log p - log p_initial" in message
    assert f"{name_of(name)} of {trainer} {TRAINERS[trainer].kl[name].why}" in message
    assert "\n" not in message


@pytest.mark.parametrize(("trainer", "name"), columns_of("token"))
def test_a_mean_per_token_is_multiplied_or_refused(tmp_path, trainer, name):
    path = log_of(tmp_path / "a.jsonl", trainer)
    length = name_of(TRAINERS[trainer].length[0]) if TRAINERS[trainer].length else "MEAN_LENGTH"
    with pytest.raises(
        reading.LogError, match=re.escape(f"is a mean per token, not the sum over a response: add --per-token {length}")
    ):
        reading.read([path], Columns(kl=name_of(name)))
    rows, notes = reading.read([path], Columns(kl=name_of(name), per_token="100"))
    assert np.allclose([row["kl"] for row in rows], 100 * 0.1 * np.arange(10))
    kl = TRAINERS[trainer].kl[name]
    assert any(f"KL(policy || initial policy), by {kl.estimator}" in note for note in notes)
    assert not kl.why or any(kl.why in note for note in notes)


@pytest.mark.parametrize(
    "trainer", [name for name, one in TRAINERS.items() if any(k.unit != "no" for k in one.kl.values())]
)
def test_of_several_the_first_usable_one_is_taken(tmp_path, trainer):
    path = log_of(tmp_path / "a.jsonl", trainer)
    _, notes = reading.read([path], Columns(per_token="100"))
    usable = [name for name, kl in TRAINERS[trainer].kl.items() if kl.unit != "no"]
    assert f"kl = {name_of(usable[0])}, gold = eval/gold" in notes[0]


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("prefix", ["", "train/"])
def test_a_trainer_is_known_by_each_of_its_marks(trainer, prefix):
    for mark in TRAINERS[trainer].marks:
        assert trainers.trainer_of([f"{prefix}{name_of(mark)}", "step"]) == trainer


def test_k2_is_said_to_overstate(tmp_path):
    _, notes = reading.read(
        [log_of(tmp_path / "a.jsonl", "open-instruct")], Columns(kl="objective/kl1_avg", per_token="9")
    )
    assert any("objective/kl1_avg is k2, l²/2: it overstates where KL is large" in note for note in notes)


# Units of unknown trainers.


@pytest.mark.parametrize(("name", "unit"), [("kl", "ask"), ("kl_divergence", "ask"), ("mean_kl", "ask"), ("kl_to_ref", "ask"),
                                            ("seq_kl", "sum"), ("kl_sum", "sum"), ("kl_per_token", "token")])  # fmt: skip
@pytest.mark.parametrize("top", [0.07, 9.0, 30.0])
def test_the_unit_is_asked_for_unless_the_name_or_the_size_says_it(tmp_path, name, unit, top):
    """No mean per token reaches 30 nats."""
    rows = [{"step": i, name: top * i / 9, "gold": i**0.5, "mean_completion_len": 300.0} for i in range(10)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if unit == "sum" or (unit == "ask" and top == 30):
        read, notes = reading.read([path], Columns())
        assert read[-1]["kl"] == pytest.approx(top)
        assert unit == "sum" or any("more than a mean per token can be" in note for note in notes)
        return
    says = "a mean per token, not the sum" if unit == "token" else "a mean per token or the sum over a response"
    with pytest.raises(reading.LogError, match=f"{says}.*--per-token mean_completion_len.*--kl-sum"):
        reading.read([path], Columns())
    assert reading.read([path], Columns(kl_sum=True))[0][-1]["kl"] == pytest.approx(top)
    assert reading.read([path], Columns(per_token="mean_completion_len"))[0][-1]["kl"] == pytest.approx(300 * top)


@pytest.mark.parametrize(("proxy", "length"), [("reward_mean", "mean_completion_len"), ("train_reward", "completion_tokens"),
                                               ("mean_reward", "response_length"), ("rm_score", "avg_len")])  # fmt: skip
def test_common_names_of_home_made_logs(tmp_path, proxy, length):
    rows = [
        {"step": i, "kl": 0.01 * i, proxy: float(i), "gold_acc": i**0.5, length: 300.0, "reward_std": 1.0}
        for i in range(10)
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(reading.LogError, match=f"--per-token {length} if"):
        reading.read([path], Columns())
    _, notes = reading.read([path], Columns(kl_sum=True))
    assert notes[0] == f"a.jsonl: kl = kl, gold = gold_acc, proxy = {proxy}, step = step"


# The guide.


def guide():
    """{trainer: its cells} of the table below the heading."""
    section = README.split("## Which column of which trainer is what\n")[1].split("\n## ")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("| ")]
    return {
        cells[0].strip(): [cell.strip().replace("\\|", "|") for cell in cells[1:]]
        for cells in rows[1:]
        if "---" not in cells[0]
    }


def code(names):
    return ", ".join(f"`{name}`" for name in names) or "–"


def cells_of(trainer):
    """The row of the guide that the code means."""
    one = TRAINERS[trainer]
    kl = [f"`{name}`: {UNITS[k.unit]}" + (f", {k.estimator.split(',')[0]}" if k.estimator else "")
          for name, k in one.kl.items() if k.unit != "no"]  # fmt: skip
    refused = [name for name, k in one.kl.items() if k.unit == "no"]
    return ["; ".join(kl) or "–", code(refused), code(one.proxy), code(one.length), code(one.gold)]


def test_the_guide_says_what_the_code_does():
    table = guide()
    assert list(table) == list(TRAINERS)
    for trainer, cells in table.items():
        assert cells == cells_of(trainer), f"{trainer}: | {trainer} | {' | '.join(cells_of(trainer))} |"
