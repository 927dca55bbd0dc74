"""`rmo fit` on logs of other trainers: every format in its real schema, and the mistakes that people make."""

import csv
import json

import numpy as np
import pytest

from rmo.analysis import bootstrap, fitting, forms, scaling
from rmo.analysis.curve import Curve
from rmo.analysis.curve_id import CurveId
from rmo.analysis.measured import measure
from rmo.artifacts.curves_csv import from_rows
from rmo.cli import fits, main
from rmo.logs import reading
from rmo.logs.columns import Columns
from rmo.methods.method import find
from rmo.runtime.files import RunError, read_csv, read_json
from tests.helpers.made_curves import refits

ALPHA, BETA, START, LENGTH = 0.9, 0.45, 2.3, 120.0
FORM = find("ppo").form
PEAK = float(forms.peak(FORM, ALPHA, BETA)[0] ** 2)


def truth(seed=0, top=30.0, k=40, alpha=ALPHA, noise=0.03, every=10):
    """(steps, KL, proxy, gold) of a run whose gold is the RL form above START, with noise."""
    kl = np.linspace(0, top**0.5, k) ** 2
    gold = fitting.Fit(FORM, alpha, BETA)(np.sqrt(kl)) + noise * np.random.default_rng(seed).normal(size=k)
    return [every * i for i in range(k)], kl.tolist(), (0.5 + 0.6 * np.sqrt(kl)).tolist(), (START + gold).tolist()


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(path, header, rows):
    with open(path, "w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    return path


def trl_ppo(path, run):
    """Trainer state of TRL's PPO: gold comes in evaluation's entries, beside and between those of training."""
    rows = []
    for step, kl, proxy, gold in zip(*run, strict=True):
        rows.append({"episode": 64 * step, "epoch": step / 400, "eps": 3, "loss/policy_avg": -0.01, "lr": 3e-6,
                     "objective/entropy": 40.0, "objective/kl": kl, "objective/non_score_reward": -0.05 * kl,
                     "objective/rlhf_reward": proxy - 0.05 * kl, "objective/scores": proxy,
                     "policy/approxkl_avg": 0.01, "val/num_eos_tokens": 0, "val/ratio": 1.0, "step": step})  # fmt: skip
        rows.append({"epoch": step / 400, "eval_gold": gold, "eval_runtime": 2.0, "step": step})
        rows.append({**rows[-2], "step": step + 3, "objective/kl": kl + 0.01})
    path.write_text(json.dumps({"best_metric": None, "global_step": 400, "log_history": rows, "max_steps": 400}))


def trl_grpo(path, run):
    jsonl(path, [
        {"loss": 0.0, "grad_norm": 0.3, "completions/mean_length": LENGTH, "completions/max_length": 256.0,
         "completions/clipped_ratio": 0.0, "rewards/rm/mean": proxy, "rewards/rm/std": 1.0, "rewards/gold/mean": gold,
         "rewards/gold/std": 0.5, "reward": proxy, "reward_std": 0.4, "frac_reward_zero_std": 0.0, "kl": kl / LENGTH,
         "entropy": 0.6, "epoch": step / 400, "step": step}
        for step, kl, proxy, gold in zip(*run, strict=True)
    ])  # fmt: skip


def openrlhf(path, run):
    """wandb's history of OpenRLHF: a row of training, then one of evaluation at wandb's next step."""
    rows = []
    for i, (step, kl, proxy, gold) in enumerate(zip(*run, strict=True)):
        rows.append({"train/policy_loss": 0.1, "train/actor_lr": 1e-6, "train/kl": kl / LENGTH, "train/reward": proxy,
                     "train/return": proxy - 0.01 * kl, "train/response_length": LENGTH, "train/total_length": 300.0,
                     "train/global_step": step, "_step": 2 * i, "_runtime": 9.0, "_timestamp": 1.7e9})  # fmt: skip
        rows.append({"eval/gold": gold, "eval/epoch": i, "_step": 2 * i + 1, "_runtime": 9.0, "_timestamp": 1.7e9})
    jsonl(path, rows)


def verl(path, run):
    """verl's file logger: validation before training has no KL yet."""
    rows = []
    for step, kl, proxy, gold in zip(*run, strict=True):
        row = {"val-core/judge/reward/mean@1": gold, "val-aux/judge/reward/std@1": 0.5}
        if step:
            row |= {"actor/pg_loss": 0.1, "actor/ppo_kl": 1e-4, "actor/reward_kl_penalty": kl / LENGTH,
                    "actor/reward_kl_penalty_coeff": 0.001, "critic/score/mean": proxy, "critic/score/max": 9.0,
                    "critic/rewards/mean": proxy - 0.001, "response_length/mean": LENGTH, "response_length/max": 512.0,
                    "training/global_step": step}  # fmt: skip
        rows.append({"step": step, "data": row})
    jsonl(path, rows)


def wandb_history(path, run):
    """TRL's PPO in wandb, with its config, from an API's scan of the history; gold every third read."""
    rows = [{"config": {"temperature": {"value": 1.0}}}]
    for i, (step, kl, proxy, gold) in enumerate(zip(*run, strict=True)):
        rows.append({"train/objective/kl": kl, "train/objective/scores": proxy, "train/objective/rlhf_reward": proxy,
                     "train/global_step": step, "_step": i, "eval/gold": gold if i % 2 == 0 else "NaN"})  # fmt: skip
    jsonl(path, rows)


def plain_csv(path, run):
    table(path, ["iteration", "nats", "rm", "human"], zip(*run, strict=True))


FORMATS = {
    "trainer_state.json": (trl_ppo, []),
    "grpo.jsonl": (trl_grpo, ["--per-token", "completions/mean_length"]),
    "openrlhf.jsonl": (openrlhf, ["--per-token", "train/response_length"]),
    "verl.jsonl": (verl, ["--gold", "val-core/judge/reward/mean@1", "--per-token", "response_length/mean"]),
    "history.jsonl": (wandb_history, []),
    "plain.csv": (plain_csv, ["--kl", "nats", "--gold", "human", "--proxy", "rm", "--step", "iteration"]),
}


def call(monkeypatch, capsys, *args, code=None):
    """What `rmo fit` prints, or the one line of its error."""
    monkeypatch.setattr(
        "sys.argv", ["rmo", "fit", *map(str, args), *([] if "--bootstrap" in args else ["--bootstrap", "200"])]
    )
    if code is None:
        main.main()
        return capsys.readouterr().out
    with pytest.raises(SystemExit):
        main.main()
    error = capsys.readouterr().err
    assert error.startswith("rmo: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_coefficients_back(tmp_path, monkeypatch, capsys, name):
    write, args = FORMATS[name]
    write(tmp_path / name, truth())
    said = call(monkeypatch, capsys, tmp_path / name, *args)
    out = tmp_path / f"{name.split('.')[0]}_fit"
    (group,) = read_json(out / "coefficients.json")["ppo"]["groups"]
    for column, value in (("alpha", ALPHA), ("beta", BETA), ("peak_kl", PEAK)):
        assert group[f"{column}_interval"][0] < value < group[f"{column}_interval"][1]
        assert group[column] == pytest.approx(value, rel=0.12)
    assert group["interval_from"].startswith("the scatter of its points")
    found = group["advice"]
    assert found["verdict"] == "stop"
    assert found["turned_probability"] > 0.99
    assert found["sentence"] in said
    assert found["sentence"] in (out / "report.html").read_text()
    (curve,) = from_rows(read_csv(out / "curves.csv"))
    assert curve.method == "ppo"
    assert curve.kl[0] == 0
    assert np.isfinite(curve.proxy).all()


def test_wandbs_panels_are_parts_of_one_table_with_a_row_per_run(tmp_path, monkeypatch, capsys):
    """One file per panel, one column and its __MIN and __MAX per run; a run's name may have a dash of its own."""
    runs = {"ppo - lr 1e-6": truth(0), "big": truth(1, alpha=1.2)}
    for file, metric, at in (("kl.csv", "train/objective/kl", 1), ("gold.csv", "eval/gold", 3)):
        header = ["Step", *(f"{run} - {metric}{end}" for run in runs for end in ("", "__MIN", "__MAX"))]
        rows = [[step, *(run[at][i] for run in runs.values() for _ in range(3))] for i, step in enumerate(truth()[0])]
        table(tmp_path / file, header, rows)
    call(monkeypatch, capsys, tmp_path / "kl.csv", tmp_path / "gold.csv", "--kl", "objective/kl")
    groups = read_json(tmp_path / "kl_fit" / "coefficients.json")["ppo"]["groups"]
    alphas = {g["settings"]: g["alpha"] for g in groups}
    assert alphas == pytest.approx({"ppo - lr 1e-6": ALPHA, "big": 1.2}, rel=0.1)


def test_groups_and_seeds(tmp_path, monkeypatch, capsys):
    rows = []
    for lr, alpha in (("1e-6", ALPHA), ("3e-6", 1.2)):
        for seed in (7, 8, 9):
            rows += [(lr, seed, *point) for point in zip(*truth(seed, alpha=alpha), strict=True)]
    path = table(tmp_path / "sweep.csv", ["lr", "run_id", "step", "objective/kl", "proxy", "gold"], rows)
    error = call(monkeypatch, capsys, path, code=2)
    assert "tell the runs apart by --group COLUMN or --seeds COLUMN, e.g. " in error
    assert "--group lr,run_id" in error
    call(monkeypatch, capsys, path, "--group", "lr", "--seeds", "run_id")
    groups = read_json(tmp_path / "sweep_fit" / "coefficients.json")["ppo"]["groups"]
    assert {g["settings"]: g["alpha"] for g in groups} == pytest.approx({"lr=1e-06": ALPHA, "lr=3e-06": 1.2}, rel=0.1)
    assert [g["interval_from"] for g in groups] == ["3 seeds"] * 2
    with pytest.raises(reading.LogError, match="no column rate"):
        reading.read([path], Columns(group="rate"))


def test_several_files_are_several_runs_or_seeds_of_one(tmp_path):
    for i in range(3):
        trl_ppo(tmp_path / f"run{i}.json", truth(i))
    paths = [tmp_path / f"run{i}.json" for i in range(3)]
    rows, notes = reading.read(paths, Columns())
    assert {row["settings"] for row in rows} == {"run0", "run1", "run2"}
    assert notes[0] == "all runs: kl = objective/kl, gold = eval_gold, proxy = objective/scores, step = step"
    curves = from_rows(reading.read(paths, Columns(seeds="file"))[0])
    assert [c.id.seed for c in curves] == [0, 1, 2]
    assert {str(c.id.settings) for c in curves} == {""}


def test_best_of_n_without_kl(tmp_path):
    n = [1, 2, 4, 8, 16, 64, 256]
    kl = [np.log(x) - (x - 1) / x for x in n]
    path = table(
        tmp_path / "bon.csv",
        ["n", "gold score"],
        [(x, 5 + d**0.5 * (0.5 - 0.1 * d**0.5)) for x, d in zip(n, kl, strict=True)],
    )
    (curve,) = from_rows(reading.read([path], Columns(n="n"))[0])
    assert curve.method == "bon"
    np.testing.assert_allclose(curve.kl, kl)
    got = fitting.fit_curve(curve.d, curve.gold, find("bon").form)
    assert (got.alpha, got.beta) == pytest.approx((0.5, 0.1))


def test_reads_take_the_kl_logged_last_before_them(tmp_path):
    kl = [{"step": s, "kl": k} for s, k in ((0, 0.0), (4, 2.0), (8, 3.0), (12, 9.0))]
    gold = [{"step": s, "gold": g} for s, g in ((0, 1.0), (5, 2.0), (8, 3.0), (11, 4.0), (30, 5.0))]
    rows, notes = reading.read([jsonl(tmp_path / "log.jsonl", kl + gold)], Columns(kl_sum=True))
    assert [(row["kl"], row["gold"]) for row in rows] == [(0, 0), (2, 1), (3, 2), (3, 3), (9, 4)]
    assert any("gold was read at 3 steps without kl: they take the last KL before" in note for note in notes)


def test_our_own_format_passes_unchanged(tmp_path):
    path = table(
        tmp_path / "c.csv", ["method", "kl", "gold", "seed"], [("ppo", k, k - 7, s) for s in (0, 1) for k in range(5)]
    )
    rows, notes = reading.read([path], Columns())
    assert notes == []
    assert [c.gold[0] for c in from_rows(rows)] == [-7, -7]


def test_of_a_restarted_run_the_last_values_count(tmp_path):
    """It goes back to a checkpoint; what goes back to the beginning is another run."""
    rows = [{"step": s, "kl": s / 10, "gold": float(s)} for s in range(0, 60, 10)]
    again = [{"step": s, "kl": s / 10, "gold": s + 0.5} for s in range(30, 90, 10)]
    read, notes = reading.read([jsonl(tmp_path / "a.jsonl", rows + again)], Columns(kl_sum=True))
    assert [row["gold"] for row in read] == [0, 10, 20, 30.5, 40.5, 50.5, 60.5, 70.5, 80.5]
    assert any("step goes back to 30 and repeats: a restarted run" in note for note in notes)
    other = [{**row, "gold": 2 * row["gold"] + 1} for row in rows]
    with pytest.raises(reading.LogError, match="gold has several values at step 0: tell the runs apart"):
        reading.read([jsonl(tmp_path / "b.jsonl", rows + other)], Columns())


def test_several_runs_without_steps_are_not_taken_for_one(tmp_path):
    """Stacked in one table: known by their steps, by whatever name, or by a KL that starts again."""
    one = [
        (k, lr, seed, k, (lr + 0.1 * seed) * k * (1 - 0.1 * k)) for lr in (1, 2) for seed in range(2) for k in range(6)
    ]
    table(tmp_path / "a.csv", ["iteration", "lr", "rep", "nats", "human"], one)
    want = Columns(kl="nats", gold="human", kl_sum=True)
    with pytest.raises(reading.LogError, match="human has several values at iteration 1"):
        reading.read([tmp_path / "a.csv"], want)
    table(tmp_path / "b.csv", ["lr", "rep", "nats", "human"], [row[1:] for row in one])
    advice = "nats starts again in row {}, and no column of steps is known: tell the runs apart by .* e.g. --group lr,rep, or say"
    with pytest.raises(reading.LogError, match=advice.format(7)):
        reading.read([tmp_path / "b.csv"], want)
    by_lr = Columns(kl="nats", gold="human", group="lr", kl_sum=True)
    with pytest.raises(reading.LogError, match="nats starts again in row 7"):
        reading.read([tmp_path / "b.csv"], by_lr)
    gaps = [("", "", "", ""), *(row[1:] for row in one)]  # an empty row counts among the file's
    table(tmp_path / "gaps.csv", ["lr", "rep", "nats", "human"], gaps)
    with pytest.raises(reading.LogError, match="nats starts again in row 8"):
        reading.read([tmp_path / "gaps.csv"], want)
    rows, _ = reading.read([tmp_path / "b.csv"], Columns(kl="nats", gold="human", group="lr", seeds="rep", kl_sum=True))
    assert len(from_rows(rows)) == 4
    hovers = [0, 1, 3, 2.5, 4, 2.2, 5, 0.01, 6]  # one run, under a penalty, and a point that is off
    table(tmp_path / "c.csv", ["nats", "human"], [(k, k) for k in hovers])
    assert len(reading.read([tmp_path / "c.csv"], want)[0]) == len(hovers)


def test_a_score_that_is_called_gold_is_no_proxy_too(tmp_path):
    """Where only its name makes it a proxy; named as both, it is refused."""
    rows = [{"step": k, "objective/kl": k, "objective/scores": k * (1 - 0.1 * k)} for k in range(6)]
    read, notes = reading.read([jsonl(tmp_path / "a.jsonl", rows)], Columns(gold="objective/scores"))
    assert "proxy = none" in notes[0]
    assert not any(row.get("proxy") for row in read)


@pytest.mark.parametrize("public", [True, False])
def test_files_of_one_name_are_named_by_their_directories(tmp_path, public):
    paths = [tmp_path / run / "curves.csv" for run in "ab"]
    for i, path in enumerate(paths):
        path.parent.mkdir()
        kl = "kl" if public else "objective/kl"
        table(path, ["method", "step_or_n", kl, "gold"], [("ppo", k, k, (i + 1) * k) for k in range(5)])
    rows, _ = reading.read(paths, Columns())
    assert {str(c.id.settings): c.gold[-1] for c in from_rows(rows)} == {"a/curves": 4, "b/curves": 8}
    with pytest.raises(RunError, match="is given twice"):
        reading.read([paths[0], paths[0]], Columns())


def test_what_is_no_text_is_refused_and_strings_may_hold_any_end_of_line(tmp_path):
    (tmp_path / "packed.json").write_bytes(b"\x1f\x8b\x08\x00\xff")
    with pytest.raises(reading.LogError, match=r"packed.json is no UTF-8 text .*: unpack it, if it is packed"):
        reading.load(tmp_path / "packed.json")
    said = [{"text": "a\u2028b\u0085c", "kl": 1.0}, {"text": "", "kl": 2.0}]
    lines = [json.dumps(row, ensure_ascii=False) for row in said]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    assert reading.load(tmp_path / "a.jsonl") == said


def test_a_killed_run_leaves_half_a_line(tmp_path):
    trl_grpo(tmp_path / "a.jsonl", truth())
    whole = reading.load(tmp_path / "a.jsonl")
    with open(tmp_path / "a.jsonl", "a") as file:
        file.write('{"step": 400, "kl"')
    assert reading.load(tmp_path / "a.jsonl") == whole
    jsonl(tmp_path / "b.jsonl", [{"a": 1}])
    (tmp_path / "b.jsonl").write_text("{oops\n" + (tmp_path / "b.jsonl").read_text())
    with pytest.raises(reading.LogError, match="line 1 is no JSON"):
        reading.load(tmp_path / "b.jsonl")
    (tmp_path / "trainer_state.json").write_text('{\n "log_history": [\n  {"step": 1},\n  {"st')
    with pytest.raises(reading.LogError, match=r"trainer_state.json is no JSON, or half of it: .*line 4"):
        reading.load(tmp_path / "trainer_state.json")
    (tmp_path / "c.csv").write_text("step;kl;gold\n1;0,5;0,1\n")
    with pytest.raises(reading.LogError, match="has semicolons between its cells"):
        reading.load(tmp_path / "c.csv")


def simple(path, **columns):
    """A CSV of a run whose columns may be replaced or added to: functions of (step, KL, proxy, gold)."""
    base = {"step": lambda s, k, p, g: s, "my/kl": lambda s, k, p, g: k, "gold": lambda s, k, p, g: g}
    made = {**base, **columns}
    made = {name: get for name, get in made.items() if get is not None}
    return table(path, list(made), [[get(*point) for get in made.values()] for point in zip(*truth(), strict=True)])


REFUSED = {
    "a mean per token": ({"kl": lambda s, k, p, g: k / LENGTH, "my/kl": None, "completions/mean_length": lambda *_: LENGTH}, {},
                         "kl of TRL's GRPO or RLOO is a mean per token, not the sum over a response: add --per-token completions/mean_length"),
    "a mean per token of verl": ({"critic/kl": lambda s, k, p, g: k / LENGTH, "my/kl": None, "actor/pg_loss": lambda *_: 1}, {},
                                 "critic/kl of verl is a mean per token, not the sum over a response: add --per-token MEAN_LENGTH"),
    "old policy": ({"actor/ppo_kl": lambda *_: 1e-3}, {"kl": "actor/ppo_kl"}, "actor/ppo_kl is between the policy before and after an update"),
    "approxkl": ({"policy/approxkl_avg": lambda *_: 1e-3}, {"kl": "policy/approxkl_avg"}, "before and after an update, not from the initial"),
    "sampler": ({"rollout_corr/kl": lambda *_: 1e-3}, {"kl": "rollout_corr/kl"}, "the sampler's and the trainer's copy"),
    "square root": ({"policy/sqrt_kl": lambda s, k, p, g: k**0.5, "my/kl": None}, {"kl": "policy/sqrt_kl"}, "policy/sqrt_kl of trlx is the square root"),
    "unit": ({"my/kl": lambda s, k, p, g: k / 3, "mean_completion_len": lambda *_: LENGTH}, {},
             "is my/kl a mean per token or the sum over a response (it reaches 10)? Say --per-token mean_completion_len if"),
    "coefficient": ({"kl_coef": lambda *_: 0.1}, {"kl": "kl_coef"}, "kl_coef is the penalty's coefficient"),
    "negative": ({"my/kl": lambda s, k, p, g: -k}, {}, "my/kl is negative on average (-10.1, down to -30)"),
    "zero": ({"my/kl": lambda *_: 0.0}, {}, "my/kl is 0 everywhere"),
    "clamped by design": ({"objective/kl_sum_seq": lambda s, k, p, g: k, "my/kl": None}, {"kl": "objective/kl_sum_seq"},
                          "objective/kl_sum_seq of AlpacaFarm leaves out negative log-ratios: too high, most where KL is small: give instead the sum"),
    "two golds": ({"gold_a": lambda s, k, p, g: g, "reward": lambda *_: 1}, {}, "which column is gold? It is not guessed: say --gold with one of gold, gold_a; if none is, score samples of checkpoints by what you want, and log it (reward is what"),
    "no gold": ({"gold": None, "eval/score": lambda s, k, p, g: g}, {}, "say --gold with one of eval/score; if none is"),
    "no such gold": ({"eval/human": lambda s, k, p, g: g}, {"gold": "eval/humans"}, "no numbers in a column eval/humans: say --gold with one of eval/human, "),
    "no kl": ({"my/kl": None}, {}, "there is no KL from the initial policy in this log: log the sum over a response of log p - log p_initial"),
    "few points": ({"gold": lambda s, k, p, g: g if s < 30 else ""}, {}, "3 usable points with my/kl and gold: a fit needs 4"),
    "no start": ({"step": lambda s, k, p, g: s + 50, "my/kl": lambda s, k, p, g: k + 0.5}, {},
                 "no point at KL 0 (the first has 0.5) tells where gold starts: give the initial policy's as --start VALUE, or --start 0 if"),
    "one column twice": ({}, {"proxy": "gold"}, "gold and the proxy are both gold: say different columns"),
    "KL for gold": ({}, {"gold": "my/kl"}, "gold and KL are both my/kl: say different columns"),
    "two golds a step": ({"step": lambda s, k, p, g: s // 20 * 20}, {}, "gold has several values at step 0: tell the runs apart by --group COLUMN or --seeds COLUMN"),
    "two golds an n": ({"n": lambda s, k, p, g: 1 + s // 20, "my/kl": None}, {"n": "n"}, "gold has several values at n 1: tell the runs apart"),
    "two errors a step": ({"step": lambda s, k, p, g: s // 20 * 20, "my/kl": lambda s, k, p, g: s // 20, "gold": lambda s, k, p, g: s // 20, "err": lambda s, k, p, g: s},
                          {"se": "err"}, "err has several values at step 0"),
    "no such length": ({}, {"per_token": "length"}, "no numbers in a column length: say --per-token with one of"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_columns_are_refused_in_one_line(tmp_path, case):
    columns, want, message = REFUSED[case]
    with pytest.raises(reading.LogError) as error:
        reading.read([simple(tmp_path / "log.csv", **columns)], Columns(**want))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("log.csv: ")


DOUBTED = {
    "some negative": ({"my/kl": lambda s, k, p, g: k - (0.8 if s < 60 else 0)}, "my/kl is negative at 6 of 40 points, down to -0.8: they are left out"),
    "clamped": ({"my/kl": lambda s, k, p, g: max(k - 5, 0)}, "my/kl is exactly 0 at 16 of 40 points"),
    "not the reference": ({"my/kl": lambda s, k, p, g: k + 3}, "my/kl is 3 at step 0, where the policy should be the initial one"),
    "temperature": ({"config.temperature": lambda *_: 0.7}, "config.temperature is 0.7, not 1: my/kl is a KL only if"),
    "TRL's temperature": ({"my/kl": None, "objective/kl": lambda s, k, p, g: k}, "objective/kl is the policies' KL if you sampled at temperature 1 (TRL's default is 0.7)"),
    "small": ({"my/kl": None, "seq_kl": lambda s, k, p, g: k / LENGTH, "mean_length": lambda *_: LENGTH},
              "seq_kl reaches only 0.25 over responses of 120 tokens: if it is a mean per token"),
    "k2": ({"my/kl": None, "policy/kl": lambda s, k, p, g: k, "rollout_scores/mean": lambda s, k, p, g: p}, "policy/kl is k2, l²/2, over prompt and response"),
    "penalised proxy": ({"objective/rlhf_reward": lambda s, k, p, g: p}, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", DOUBTED)
def test_doubts_are_printed(tmp_path, case):
    columns, message = DOUBTED[case]
    proxy = "objective/rlhf_reward" if case == "penalised proxy" else None
    start = START if case in ("some negative", "not the reference") else None  # no point is left at KL 0
    rows, notes = reading.read(
        [simple(tmp_path / "log.csv", **columns)], Columns(proxy=proxy, start=start, kl_sum=True)
    )
    assert any((message or "objective/rlhf_reward is the score less the KL penalty") in note for note in notes)
    assert all("\n" not in note for note in notes)
    assert len(rows) == (34 if case == "some negative" else 40)
    # Where nothing is wrong, the notes are only what was read.
    assert len(reading.read([simple(tmp_path / "fine.csv")], Columns(kl_sum=True))[1]) == 2


def test_gold_starts_at_zero(tmp_path):
    """By its first points, or as given; the proxy too."""
    path = simple(tmp_path / "a.csv", proxy=lambda s, k, p, g: p)
    rows, _ = reading.read([path], Columns())
    assert (rows[0]["gold"], rows[0]["proxy"]) == (0, 0)
    rows, _ = reading.read([path], Columns(start=2.0))
    assert rows[0]["gold"] == pytest.approx(truth()[3][0] - 2)
    # A proxy in quite another unit is put into gold's: the factor by which it rises with gold.
    rows, notes = reading.read(
        [simple(tmp_path / "b.csv", proxy=lambda s, k, p, g: 100 * g if s < 300 else 200 * g)], Columns()
    )
    assert rows[5]["proxy"] == pytest.approx(rows[5]["gold"])
    assert "proxy counts 0.01-fold" in notes[-1]


def curve_of(alpha, beta, top, k=40, noise=0.02, seed=0, bend=None):
    """A run without standard errors; `bend` instead of the form."""
    kl = np.linspace(0, top**0.5, k) ** 2
    gold = fitting.Fit(FORM, alpha, beta)(np.sqrt(kl)) if bend is None else bend(np.sqrt(kl))
    gold = gold + noise * np.random.default_rng(seed).normal(size=k)
    return Curve(CurveId("ppo", seed=seed), 10.0 * np.arange(k), kl, gold * np.nan, gold - gold[0])


def advised(*curves):
    (group,) = scaling.summarise(curves, 400)["ppo"]["groups"]
    return group["advice"]


def test_advice_by_how_far_the_data_reach():
    past, before, far = (advised(curve_of(ALPHA, BETA, top)) for top in (30, 6, 1.5))
    assert past["verdict"] == "stop"
    assert past["past_peak"]
    assert past["turned_probability"] == 1
    assert past["peak_step"] == pytest.approx(390 * (PEAK / 30) ** 0.5, rel=0.05)
    assert past["sentence"].startswith("stop at KL 7")
    assert before["verdict"] == "go on"
    assert not before["past_peak"]
    assert before["peak_step"] is None  # nobody has seen it
    assert before["turned_probability"] < 0.3
    assert far["verdict"] == "undecided"
    assert far["turned_probability"] < 0.2
    assert far["sentence"].startswith("undecided: the data do not show a peak up to KL 1.5 (step 390)")


def test_advice_where_gold_never_turns_or_never_rises():
    assert advised(curve_of(0.5, -0.1, 30))["verdict"] == "undecided"
    falls = advised(curve_of(-0.8, 0.3, 30))
    assert falls["verdict"] == "stop"
    assert falls["sentence"].startswith("do not optimise against this proxy")


def test_advice_where_the_form_does_not_fit():
    """What was measured counts: gold that fell by far more than its noise has turned, whatever the fit says of where."""
    bend = lambda d: np.interp(d, [0, 1, 2, 3, 5.5], [0, 0.8, 0.8, -1, -0.8])
    found = advised(curve_of(0, 0, 30, bend=bend))
    assert found["verdict"] == "stop"
    assert "where gold was highest: by KL 30 gold has fallen by 1.6" in found["sentence"]
    assert 0.8 < found["kl"] < 4
    for seed in range(40):  # a plateau falls only by its noise
        level = curve_of(0, 0, 30, noise=0.05, seed=seed, bend=lambda d: 1 - np.exp(-d))
        fall, error = measure([level]).fall
        assert fall <= 3 * error < level.gold.max()


def test_a_fit_worse_than_a_constant_is_not_followed():
    """Gold that nobody took its start from: the form has to pass through 0, and cannot."""
    kl = np.linspace(1, 30, 40)
    found = advised(Curve(CurveId("ppo"), 10.0 * np.arange(40), kl, kl * np.nan, 5 + 0.15 * kl**0.5))
    assert found["verdict"] == "undecided"
    assert found["sentence"].startswith("undecided: the form fits worse than a constant (R² -")
    assert "gold was highest at KL 30 (step 390), and it has not fallen" in found["sentence"]
    assert np.isnan(found["turned_probability"])
    assert not found["past_peak"]


def test_nobody_is_sent_on_past_a_probable_peak():
    every = [advised(curve_of(0.5, 0.21, 20, k=12, noise=0.1, seed=seed)) for seed in range(12)]
    turned = [a for a in every if a["verdict"] == "undecided" and a["turned_probability"] > 0.8]
    assert turned
    for found in turned:
        assert "gold has probably turned by KL 20 (step 110)" in found["sentence"]
        assert "do not optimise further" in found["sentence"]
        assert found["kl"] <= 20
    assert not [a for a in every if "go on" in a["sentence"] and a["turned_probability"] > 0.8]


def test_a_seed_that_never_moves_decides_nothing():
    still = Curve(CurveId("ppo", seed=1), 10.0 * np.arange(40), np.zeros(40), np.full(40, np.nan), np.zeros(40))
    found = advised(curve_of(ALPHA, BETA, 30), still)
    assert found["verdict"] == "undecided"
    assert "a curve never leaves KL 0" in found["sentence"]


def test_peaks_out_of_all_range_are_said_to_be_beyond_the_data(tmp_path, capsys):
    """A curve that hardly bends: neither its peak nor an end of its interval is a number that nobody can use."""
    curve = curve_of(0.5, 0.03, 6, noise=0.001)
    fitted = scaling.summarise([curve], 400)
    (group,) = fitted["ppo"]["groups"]
    assert group["peak_kl"] == group["peak_gold"] == group["peak_kl_interval"][1] == np.inf
    fits.show([curve], fitted, tmp_path)
    for said in (capsys.readouterr().out, (tmp_path / "report.html").read_text()):
        assert "beyond the data" in said
        assert "e+" not in "".join(line for line in said.splitlines() if "peak beyond" in line)
    for seed in range(5):
        (group,) = scaling.summarise([curve_of(0.3, 0.2, 20, k=8, noise=0.2, seed=seed)], 200)["ppo"]["groups"]
        assert group["peak_kl_interval"][0] >= 0


def test_two_seeds_that_differ():
    """One degree of freedom: a wide interval about their mean, and no certainty."""
    found = scaling.summarise([curve_of(a, 0.2, 30, noise=0, seed=s) for s, a in enumerate((0.5, 0.9))], 400)["ppo"][
        "groups"
    ][0]
    low, high = found["alpha_interval"]
    assert (low + high) / 2 == pytest.approx(0.7, abs=0.01)
    assert high - low > 1.5


def test_forecasts_are_trusted_as_far_as_they_held():
    """A curve of the form is forecast from its beginning; one that breaks off is not."""
    smooth = advised(curve_of(ALPHA, BETA, 30))
    assert smooth["trusted_to_kl"] == pytest.approx(4 * 30)
    breaks = advised(curve_of(0, 0, 30, bend=lambda d: np.where(d < 4, d, 4 - 6 * (d - 4))))
    assert breaks["trusted_to_kl"] == pytest.approx(30)
    assert not any(row["holds"] for row in breaks["forecasts"])


@pytest.mark.slow
@pytest.mark.parametrize("k", [6, 12, 40])
def test_intervals_from_the_scatter_of_points_cover(k):
    """95% intervals of a, b and the peak hold the truth in 92 of 100 runs or more, zero being read from a noisy point."""
    hits = np.zeros(3)
    for seed in range(100):
        curve = curve_of(ALPHA, BETA, 30, k, 0.05, seed)
        values, r = refits(fitting.group([curve], "ppo"), FORM, False, 400, 0.3, seed)
        peaks = forms.peak(FORM, values[:, 0, 0], values[:, 0, 1])[0] ** 2
        for i, (found, true) in enumerate(((values[:, 0, 0], ALPHA), (values[:, 0, 1], BETA), (peaks, PEAK))):
            low, high = bootstrap.interval(found, r)
            hits[i] += low <= true <= high
    assert (hits >= 92).all()
