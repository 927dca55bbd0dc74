"""Every shape in which people keep a log, made from one known run, gives its coefficients back."""

import json
import struct

import numpy as np
import pytest

from rmo.analysis import fitting
from rmo.artifacts.curves_csv import from_rows
from rmo.logs import formats, reading
from rmo.logs.columns import Columns
from rmo.logs.event_files import masked_crc
from rmo.logs.rows import LogError
from rmo.methods.method import find

ALPHA, BETA, START, LENGTH = 0.9, 0.45, 2.3, 120.0
FORM = find("ppo").form
WANT = Columns(kl_sum=True, gold="gold", kl="kl", proxy="reward")


def run(alpha=ALPHA, k=40):
    """Rows of a run whose gold is the RL form above START."""
    kl = np.linspace(0, 5.5, k) ** 2
    gold = START + fitting.Fit(FORM, alpha, BETA)(np.sqrt(kl))
    return [
        {"step": 10 * i, "kl": float(kl[i]), "gold": float(gold[i]), "reward": float(kl[i] ** 0.5)} for i in range(k)
    ]


def columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def by_step(rows):
    return {str(row["step"]): {name: row[name] for name in row if name != "step"} for row in rows}


def written(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def bar(step, end):
    return f"  1%|▏         | {step}/{end} [00:12<3:04:10, 11.06s/it]"


def terminal(rows):
    """Bars that overwrite themselves, a warning in braces, and dicts, as the Trainer prints them."""
    text = "Updated tokens: {'bos_token_id': None, 'pad_token_id': 151643}.\n"
    for row in rows:
        printed = {name: value for name, value in row.items() if name != "step"}
        text += f"\r{bar(row['step'], 390)}\r{'':60}\r{printed}\n\r{bar(row['step'], 390)}"
    return text + "{'train_runtime': 7154.7, 'train_loss': 0.04, 'epoch': 1.6}\n"


def in_lumps(rows):
    """Dicts that a buffer held back, far from their bars."""
    lines = "".join(f"{bar(10 * (i + 1), 400)}\r" for i in range(len(rows)))
    return lines + "\n".join(str({n: v for n, v in row.items() if n != "step"}) for row in rows)


def wrapped(rows):
    """A terminal broke the lines at 60 characters, within words too."""
    lines = [f"{{'step': {row['step']}, 'loss': nan, 'kl': {row['kl']!r}, 'gold': np.float64({row['gold']!r}), "
             f"'reward': tensor({row['reward']!r}, device='cuda:0')}}" for row in rows]  # fmt: skip
    return "\n".join("\n".join(line[i : i + 60] for i in range(0, len(line), 60)) for line in lines)


def verl(rows):
    made = ""
    for row in rows:
        cells = " - ".join(f"{name}:{value!r}" for name, value in row.items() if name != "step")
        made += f"\x1b[36m(TaskRunner pid=871)\x1b[0m step:{row['step']} - timing/gen:np.float64(21.4) - {cells}\n"
    return made + "Training Progress: 100%\n"


def pairs(rows):
    return "".join(f"12:03:0{i % 10} INFO Step {r['step']}: kl={r['kl']!r}, gold={r['gold']!r} reward={r['reward']!r}\n"
                   for i, r in enumerate(rows))  # fmt: skip


def boxes(rows):
    made = ""
    for row in rows:
        made += f"Step {row['step']}/390\n┌──────┬──────┐\n"
        made += (
            "".join(f"│ {name} │ {value!r} │\n" for name, value in row.items() if name != "step") + "└──────┴──────┘\n"
        )
    return made


def csv_of(rows, separator=","):
    return "\n".join([separator.join(rows[0]), *(separator.join(map(repr, row.values())) for row in rows)]) + "\n"


def long_csv(rows):
    cells = [(r["step"], name, r[name]) for r in rows for name in ("kl", "gold", "reward")]
    return "step,metric,value\n" + "".join(f"{s},{n},{v!r}\n" for s, n, v in cells)


ONE_RUN = {
    "rows.json": lambda r: r,
    "rows.jsonl": lambda r: "".join(json.dumps(row) + "\n" for row in r),
    "any_name.json": lambda r: {"best_metric": None, "log_history": r, "global_step": 390},
    "wrapped.jsonl": lambda r: "".join(json.dumps({"step": row["step"], "metrics": row}) + "\n" for row in r),
    "columns.json": columns,
    "columns_below.json": lambda r: {"config": {"lr": 1e-6, "layers": [1, 2, 3]}, "metrics": columns(r)},
    "steps.json": by_step,
    "stepped_columns.json": lambda r: {n: {str(x["step"]): x[n] for x in r} for n in ("kl", "gold", "reward")},
    "frame.json": lambda r: {"columns": list(r[0]), "data": [list(row.values()) for row in r]},
    "header.json": lambda r: [list(r[0]), *(list(row.values()) for row in r)],
    "two_lengths.json": lambda r: {
        "steps": [row["step"] for row in r] + [400],
        "kl": [row["kl"] for row in r] + [33.0],
        "reward": [row["reward"] for row in r] + [6.0],
        "eval_steps": [row["step"] for row in r],
        "gold": [row["gold"] for row in r],
    },
    "rows.csv": csv_of,
    "rows.tsv": lambda r: csv_of(r, "\t"),
    "rows.txt": csv_of,
    "long.csv": long_csv,
    "terminal.log": terminal,
    "lumps.log": in_lumps,
    "wrapped.out": wrapped,
    "verl.log": verl,
    "pairs.log": pairs,
    "boxes.log": boxes,
}
TWO_RUNS = {
    "runs_of_rows.json": lambda a, b: {"a": a, "b": b},
    "runs_of_steps.json": lambda a, b: {"a": by_step(a), "b": by_step(b)},
    "runs_of_columns.json": lambda a, b: {"a": columns(a), "b": columns(b)},
    "runs_with_more.json": lambda a, b: {"a": {"lr": 1, "log_history": a}, "b": {"lr": 2, "log_history": b}},
    "runs_in_history.json": lambda a, b: {"runs": {"a": {"history": a}, "b": {"history": b}}},
    "list_of_runs.json": lambda a, b: [
        {"name": "a", "seed": 1, "history": a}, {"name": "b", "seed": 2, "history": b}],
    "line_per_run.jsonl": lambda a, b: "\n".join(json.dumps({"run": n, **columns(r)}) for n, r in (("a", a), ("b", b))),
    "panel.csv": lambda a, b: panel(a, b, ("",)),
    "panel_with_bounds.csv": lambda a, b: panel(a, b, ("", "__MIN", "__MAX")),
}  # fmt: skip


def panel(a, b, ends):
    """What wandb exports of one panel with several metrics; runs' names have dashes."""
    names = ("kl", "gold", "reward")
    header = ["Step", *(f"{run} - {name}{end}" for run in "ab" for name in names for end in ends)]
    lines = [",".join(f'"{name}"' for name in header)]
    for x, y in zip(a, b, strict=True):
        lines.append(",".join([str(x["step"]), *(repr(row[name]) for row in (x, y) for name in names for _ in ends)]))
    return "\n".join(lines) + "\n"


def fitted(curve):
    got = fitting.fit_curve(curve.d, curve.gold, FORM)
    return got.alpha, got.beta


@pytest.mark.parametrize("name", ONE_RUN)
def test_every_shape_of_one_run_gives_its_coefficients(tmp_path, name):
    path = written(tmp_path / name, ONE_RUN[name](run()))
    (curve,) = from_rows(reading.read([path], WANT)[0])
    assert fitted(curve) == pytest.approx((ALPHA, BETA), abs=1e-6)
    assert curve.step_or_n[1] - curve.step_or_n[0] == 10


@pytest.mark.parametrize("name", TWO_RUNS)
def test_every_shape_of_several_runs_gives_theirs(tmp_path, name):
    path = written(tmp_path / name, TWO_RUNS[name](run(), run(1.2)))
    curves = {str(c.id.settings): c for c in from_rows(reading.read([path], WANT)[0])}
    assert {label: fitted(curve)[0] for label, curve in curves.items()} == pytest.approx(
        {"a": ALPHA, "b": 1.2}, abs=1e-6
    )


def test_rows_with_lists_in_them_are_no_runs(tmp_path):
    rows = [{**row, "histogram": [1, 2, 3], "rewards": [0.1, 0.2]} for row in run()]
    path = written(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    (curve,) = from_rows(reading.read([path], WANT)[0])
    assert fitted(curve)[0] == pytest.approx(ALPHA)


# Binary files.


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    """A field of a protocol buffer: whole numbers, floats, bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def record(data):
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_crc(head)) + data + struct.pack("<I", masked_crc(data))


def events(path, rows, as_tensor=False):
    """An event file of a summary writer's, scalars as numbers or as tensors."""
    made = record(field(3, b"brain.Event:2"))
    for row in rows:
        for name in ("kl", "gold", "reward"):
            value = field(2, row[name])
            if as_tensor:  # a float tensor of no dimensions: its bytes, or a packed list of one
                held = (
                    field(4, struct.pack("<f", row[name])) if name == "kl" else field(5, struct.pack("<f", row[name]))
                )
                value = field(8, field(1, 1) + held)
            made += record(field(2, row["step"]) + field(5, field(1, field(1, name.encode()) + value)))
        made += record(field(2, row["step"]) + field(5, field(1, field(1, b"text") + field(4, b"no scalar"))))
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(made)
    return path


@pytest.mark.parametrize("as_tensor", [False, True])
def test_event_files(tmp_path, as_tensor):
    path = events(tmp_path / "events.out.tfevents.1760000000.host", run(), as_tensor)
    (curve,) = from_rows(reading.read([path], WANT)[0])
    assert fitted(curve) == pytest.approx((ALPHA, BETA), abs=1e-4)  # float32


def test_a_directory_of_event_files_is_a_run_per_directory_restarts_included(tmp_path):
    whole = run()
    events(tmp_path / "a" / "events.out.tfevents.1760000001.h", whole[:25])
    events(tmp_path / "a" / "events.out.tfevents.1760000002.h", [{**r, "gold": r["gold"] + 0.5} for r in whole[20:]])
    events(tmp_path / "b" / "events.out.tfevents.1760000000.h", run(1.2))
    rows, notes = reading.read([tmp_path], WANT)
    curves = {str(c.id.settings): c for c in from_rows(rows)}
    assert len(curves["a"].kl) == 40
    assert curves["a"].gold[22] == pytest.approx(whole[22]["gold"] + 0.5 - START, abs=1e-5)
    assert any("step goes back to 200 and repeats: a restarted run" in note for note in notes)
    assert fitted(curves["b"])[0] == pytest.approx(1.2, abs=1e-4)


def test_what_is_cut_off_or_damaged_in_an_event_file_is_left_out_with_a_word(tmp_path):
    path = events(tmp_path / "events.out.tfevents.1.h", run())
    data = path.read_bytes()
    path.write_bytes(data[:-30])  # a run that was killed
    assert len(formats.load(path)) == 40
    half = len(data) // 2
    path.write_bytes(data[:half] + b"\xff" * 50 + data[half:])
    found = formats.load_file(path)
    assert 15 < len(found.rows) < 25
    assert "are damaged: they are left out" in found.notes[0]
    path.write_bytes(b"")
    with pytest.raises(LogError, match="holds no scalars"):
        formats.load(path)


def wandb_log(path, rows, config):
    """A transaction log of wandb's, its records made by wandb's own messages."""
    from wandb.proto import wandb_internal_pb2 as pb

    messages = []
    first = pb.Record()
    first.run.run_id = "x"
    for name, value in config.items():
        item = first.run.config.update.add()
        item.key, item.value_json = name, json.dumps(value)
    messages.append(first)
    for i, row in enumerate(rows):
        message = pb.Record()
        message.history.step.num = i
        for name, value in row.items():
            item = message.history.item.add()
            item.nested_key.extend(name.split("/"))
            item.value_json = json.dumps(value)
        messages.append(message)
    data = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
    for message in messages:
        left, kind = message.SerializeToString(), 1
        while True:
            room = 32768 - len(data) % 32768 - 7
            if room < 0:
                data += b"\0" * (room + 7)
                continue
            part, left = left[:room], left[room:]
            if left:
                kind = {1: 2, 2: 3, 3: 3}[kind]
            elif kind != 1:
                kind = 4
            data += struct.pack("<IHB", 0, len(part), kind) + part
            kind = {2: 2, 3: 2}.get(kind, 1)
            if not left:
                break
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(data)


def test_a_wandb_offline_run(tmp_path):
    """Records that span blocks too; the temperature of its config is known."""
    folder = tmp_path / "wandb" / "offline-run-20261126_075738-7xoc578x"
    rows = [
        {"train/kl": r["kl"], "eval/gold": r["gold"], "train/reward": r["reward"], "note": "x" * 5000} for r in run()
    ]
    wandb_log(folder / "run-7xoc578x.wandb", rows, {"temperature": 0.7, "lr": 1e-6})
    (folder / "files").mkdir()
    (folder / "files" / "wandb-summary.json").write_text('{"train/kl": 3}')
    for path in (folder, tmp_path / "wandb", folder / "run-7xoc578x.wandb"):
        read, notes = reading.read([path], Columns(kl_sum=True))
        (curve,) = from_rows(read)
        assert fitted(curve) == pytest.approx((ALPHA, BETA), abs=1e-6)
        assert any("config/temperature is 0.7, not 1" in note for note in notes)


def test_histories_in_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"_step": r["step"], "train/kl": r["kl"], "train/reward": r["reward"], "eval/gold": r["gold"] if i % 2 == 0 else None,
             "table": [1, 2]} for i, r in enumerate(run())]  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "0000.parquet")
    (curve,) = from_rows(reading.read([tmp_path / "0000.parquet"], Columns(kl_sum=True))[0])
    assert len(curve.kl) == 20
    assert fitted(curve) == pytest.approx((ALPHA, BETA), abs=1e-6)


def test_of_a_runs_checkpoints_the_last_state_counts(tmp_path):
    for step in (100, 200, 390):
        rows = [row for row in run() if row["step"] <= step]
        folder = tmp_path / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        written(folder / "trainer_state.json", {"log_history": rows})
        written(folder / "config.json", {"layers": 3})
    (curve,) = from_rows(reading.read([tmp_path], WANT)[0])
    assert len(curve.kl) == 40


def test_a_directory_of_tables_is_a_run_per_file(tmp_path):
    written(tmp_path / "a.jsonl", ONE_RUN["rows.jsonl"](run()))
    written(tmp_path / "b.jsonl", ONE_RUN["rows.jsonl"](run(1.2)))
    written(tmp_path / "config.json", {"lr": 3})
    curves = from_rows(reading.read([tmp_path], WANT)[0])
    assert {str(c.id.settings): fitted(c)[0] for c in curves} == pytest.approx({"a": ALPHA, "b": 1.2}, abs=1e-6)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LogError, match="holds no logs: name the file"):
        reading.read([tmp_path / "empty"], WANT)


def test_slimes_three_steps_are_one(tmp_path):
    """Two steps of training a rollout; gold is read at every fifth rollout."""
    rows = []
    for i, r in enumerate(run()):
        rows += [{"train/step": 2 * i + j, "train/kl_loss": r["kl"] / LENGTH, "train/ppo_kl": 1e-3} for j in (0, 1)]
        rows.append({"rollout/step": i, "rollout/raw_reward": r["reward"], "rollout/response_len/mean": LENGTH})
        rows.append({"eval/step": i, "eval/gold": r["gold"]})
    path = written(tmp_path / "slime.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    read, notes = reading.read([path], Columns(per_token="rollout/response_len/mean"))
    (curve,) = from_rows(read)
    assert fitted(curve) == pytest.approx((ALPHA, BETA), abs=1e-6)
    assert "kl = train/kl_loss, gold = eval/gold, proxy = rollout/raw_reward, step = step" in notes[0]


def test_ms_swifts_steps_are_fractions(tmp_path):
    rows = [{"kl": r["kl"] / LENGTH, "reward": r["reward"], "eval_gold": r["gold"], "completions/mean_length": LENGTH,
             "global_step/max_steps": f"{r['step']}/390"} for r in run()]  # fmt: skip
    path = written(tmp_path / "logging.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    (curve,) = from_rows(reading.read([path], Columns(per_token="completions/mean_length"))[0])
    assert fitted(curve) == pytest.approx((ALPHA, BETA), abs=1e-6)
    assert curve.step_or_n[-1] == 390


# Samples.


@pytest.mark.parametrize("how", ["named", "kl alike", "kl apart"])
def test_gold_per_sample_becomes_a_mean_with_its_standard_error(tmp_path, how):
    """By the name of a column of samples, by KL that is one for all of a step, or logged in rows of its own."""
    rng = np.random.default_rng(0)
    rows = []
    for r in run(k=12):
        if how == "kl apart":
            rows.append({"step": r["step"], "kl": r["kl"]})
        for i in range(64):
            row = {"step": r["step"], "gold": r["gold"] + rng.normal()}
            row |= {"prompt_id": i} if how == "named" else {}
            row |= {} if how == "kl apart" else {"kl": r["kl"]}
            rows.append(row)
    path = written(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    read, notes = reading.read([path], Columns(kl_sum=True))
    (curve,) = from_rows(read)
    assert len(curve.kl) == 12
    assert curve.gold_se == pytest.approx(np.full(12, 1 / 8), rel=0.3)
    assert any("gold has 64 values at every step: their mean counts" in note for note in notes)


def test_seeds_side_by_side_are_no_samples(tmp_path):
    """Sorted by step: three runs, whose seeds tell them apart."""
    rows = [
        {**r, "kl": r["kl"] * (1 + 0.1 * seed), "seed": seed, "gold": r["gold"] + seed}
        for r in run()
        for seed in range(3)
    ]
    path = written(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(LogError, match=r"gold has several values at step 0: .*--group seed"):
        reading.read([path], Columns(kl_sum=True))


def test_what_powershell_redirects_is_utf_16(tmp_path):
    rows = [f'{{"step": {k}, "objective/kl": {k / 10}, "eval/gold": {1 + k / 20}}}\n' for k in range(9)]
    for name, encoding in (("eight.jsonl", "utf-8"), ("sixteen.jsonl", "utf-16")):
        (tmp_path / name).write_text("".join(rows), encoding=encoding)
    found = [formats.load(tmp_path / name) for name in ("eight.jsonl", "sixteen.jsonl")]
    assert found[0] == found[1]
    assert len(found[0]) == 9
