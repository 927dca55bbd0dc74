import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from rmo import config
from rmo.cli import options
from rmo.cli.commands.run import RunOptions
from rmo.config import checks, identity
from rmo.experiment import graph

ROOT = Path(__file__).parents[2]
BASE = config.Experiment()


def change(**parts):
    """BASE with nested replacements: change(ppo={"batch": 3})."""
    return dataclasses.replace(
        BASE, **{k: dataclasses.replace(getattr(BASE, k), **v) if isinstance(v, dict) else v for k, v in parts.items()}
    )


def sweep(comparisons, **recipe):
    return config.Sweep(recipes=(config.Recipe(comparisons, **recipe),))


def test_shipped_configs_are_sound():
    for path in (ROOT / "configs").glob("*.py"):
        experiment = checks.load(path)
        assert experiment.name == path.stem
        assert graph.plan(experiment)
        assert f"rmo run configs/{path.name}" in path.read_text()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"policy": {"heads": 3}}, "policy.heads is 3: it must divide width 64"),
        ({"policy": {"heads": 4, "kv_heads": 3}}, "kv_heads is 3"),
        ({"policy": {"width": 12, "heads": 4}}, "even head size"),
        ({"bon": {"max_n": 5000}}, "larger than the 4096 draws"),
        ({"proxies": {"sweeps": (config.Sweep(recipes=()),)}}, "a proxy needs comparisons"),
        ({"proxies": {"sweeps": (sweep(10**6),)}}, "36000 training comparisons"),
        ({"proxies": {"sweeps": (sweep(2000, prompts=300),)}}, "recipes.0.prompts is 300"),
        ({"proxies": {"sweeps": (sweep(9000, prompts=1000),)}}, "leave at most 4"),
        ({"proxies": {"sweeps": (sweep(2000, flip=0.5),)}}, r"recipes.0.flip is 0.5: it must lie in \[0, 0.5\)"),
        ({"proxies": {"sweeps": (sweep(36_000, stop_early=True),)}}, "stop_early needs 1000 training comparisons"),
        ({"proxies": {"sweeps": (sweep(2000), sweep(1000))}}, "two entries of one name: main, main"),
        ({"proxies": {"sweeps": (config.Sweep(sizes=(3,)),)}}, "proxies.sizes holds indices 0 to 0"),
        ({"proxies": {"sweeps": (config.Sweep(best_of_n=False),)}}, "the first is best-of-n's main one"),
        (
            {"proxies": {"sweeps": (sweep(2000, choice="uncertain"),)}},
            "needs RMs that choose: proxies.sweeps.0.first is ''",
        ),
        (
            {
                "proxies": {
                    "sweeps": (sweep(2000), config.Sweep("a", (config.Recipe(6000, choice="uncertain"),), first="main"))
                }
            },
            r"sweep main must train every size of this one .* on half as many comparisons \(3000\)",
        ),
        ({"proxies": {"sweeps": (sweep(2000, choice="uncertain", prompts=500),)}}, "has choice and prompts"),
        ({"proxies": {"sweeps": (sweep(2000, choice="wrong"),)}}, "choice is 'wrong'"),
        ({"proxies": {"sweeps": (sweep(2000, confounded=0.5),)}}, "confounded is 0.5: it must lie above 0.5, which is"),
        ({"proxies": {"sweeps": (sweep(2000, confounded=1.5),)}}, "confounded is 1.5"),
        ({"proxies": {"sweeps": (sweep(2000, confounded=0.8, prompts=500),)}}, "has confounded and prompts"),
        ({"proxies": {"sweeps": (sweep(2000, confounded=0.8, flip=0.1),)}}, "has confounded and flip: .*; use one"),
        (
            {"comparisons": {"labels": "sampled"}, "proxies": {"sweeps": (sweep(2000, confounded=0.8),)}},
            "has confounded, and comparisons.labels is 'sampled': .*; take \"hard\"",
        ),
        (
            {"proxies": {"sweeps": (sweep(30_000, confounded=0.8),)}},
            "confounded takes 24000 comparisons .* about 18000 do; take fewer comparisons, at most 20250",
        ),
        (
            {"proxies": {"sweeps": (sweep(2000), config.Sweep("once", (config.Recipe(2000, epochs=1),)))}},
            "one recipe twice",
        ),
        ({"proxies": {"steps": -1}}, "proxies.steps is -1: it must be at least 0"),
        ({"proxies": {"start": "language_model", "trunk": config.SFT(texts=100)}}, "proxies.trunk.texts is 100"),
        (
            {"proxies": {"start": "language_model", "trunk": config.SFT(texts=0)}},
            "proxies.trunk.texts is 0: it must be",
        ),
        (
            {"proxies": {"start": "language_model", "sizes": (config.Model(checkpoint="some/model"),)}},
            "every size starts from its checkpoint",
        ),
        ({"ppo": {"against": (config.Against(sweep="data"),)}}, "against.0.sweep is 'data': proxies.sweeps has main"),
        ({"ppo": {"against": (config.Against(recipes=(1,)),)}}, "recipes of sweep main holds indices 0 to 0"),
        ({"ppo": {"against": (config.Against(kl_coefs=(-1.0,)),)}}, "kl_coefs must be at least 0"),
        ({"other_policies": (config.OtherPolicy(),)}, "another policy's parameter count"),
        ({"proxies": {"sizes": ()}}, "at least one proxy"),
        ({"policy": {"pooling": "sum"}}, "policy.pooling is 'sum': only an RM has a score"),
        (
            {"gold": config.Gold(kind="checkpoint", model=config.Model(pooling="sum"))},
            "the head of a checkpoint is for the last token",
        ),
        ({"ppo": {"minibatches": 3}}, "divide ppo.batch 256"),
        ({"ppo": {"against": (config.Against(sizes=(4,)),)}}, "sweep main has sizes"),
        ({"ppo": {"kl_max": float("nan")}}, "must be finite"),
        ({"proxies": {"stop_early": True}}, "stop_early needs 1000 training comparisons"),
        (
            {"gold": {"kind": "random", "start": "language_model"}},
            "gold.start is 'language_model': gold of kind random",
        ),
        ({"sft": {"epochs": 0}}, "sft.epochs is 0: it must be positive"),
        ({"comparisons": {"held_out": 1.0}}, "leave prompts on both sides"),
        ({"comparisons": {"flip": 0.7}}, "comparisons.flip is 0.7"),
        ({"world": {"unigrams": 0, "conditionals": 0, "pairs": 0}}, "no features"),
        ({"world": {"optimum": (2.0, 1.0)}}, "world.optimum is 2.0 to 1.0"),
        ({"world": {"shortest": 32}}, "world.shortest is 32"),
        ({"bon": {"draws": 1000, "max_n": 500, "chunk": 300}}, "bon.chunk"),
        ({"name": "a/b"}, "no slashes"),
        ({"sft": {"texts": 100}}, "at least one batch"),
        ({"gold": {"texts": 200}}, "at least one batch"),
        ({"world": {"weights": (0.0, 0.0, 0.0, 0.0)}}, "not all 0"),
        ({"world": {"set_share": 5.0}}, "at most 1"),
        ({"comparisons": {"pairs": 0}}, "comparisons.pairs is 0"),
        ({"bon": {"prompts": 1}}, "at least 2"),
        ({"proxies": {"sizes": (config.Model(heads=4), config.Model(heads=2))}}, "one parameter count"),
    ],
)
def test_impossible_values_are_one_clear_line(parts, message):
    with pytest.raises(config.ConfigError, match=message) as error:
        checks.check(change(**parts))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"bon": {"prompts": "48"}}, "bon.prompts is '48': it must be int"),
        ({"bon": {"prompts": 48.0}}, "bon.prompts is 48.0: it must be int"),
        ({"bon": {"prompts": True}}, "bon.prompts is True: it must be int"),
        ({"ppo": {"kl_max": None}}, "ppo.kl_max is None: it must be float"),
        ({"name": 3}, "name is 3: it must be str"),
        ({"proxies": {"stop_early": "yes"}}, "proxies.stop_early is 'yes': it must be bool"),
        ({"proxies": {"start": "nowhere"}}, "proxies.start is 'nowhere': it must be random or"),
        ({"proxies": {"sizes": [config.Model()]}}, "it must be a tuple"),
        ({"proxies": {"sizes": ("w32x2",)}}, "proxies.sizes.0 is 'w32x2': it must be Model"),
        ({"policy": "owner/name"}, "policy is 'owner/name': it must be Model"),
        ({"world": config.Text(prompts="p.jsonl", prompt="40")}, "world.prompt is '40': it must be int"),
    ],
)
def test_values_of_another_type_are_one_clear_line(parts, message):
    """A config file is Python: nothing before the check has looked at types."""
    with pytest.raises(config.ConfigError, match=message) as error:
        checks.check(change(**parts))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = 1", "experiment"), ("def experiment(): return 3", "returned int"), ("def experiment(: pass", "SyntaxError"),
     ("from rmo.config import *\ndef experiment(): return Experiment(nmae='x')",
      r"c.py:2: Experiment has no field nmae; perhaps name \(str, default 'experiment'\)"),
     ("import rmo.config as r\nimport dataclasses\nppo = dataclasses.replace(r.PPO(), kl_maxx=3)", r"c.py:3: PPO has no field kl_maxx; perhaps kl_max"),
     ("from rmo.config import *\nx = Experimnt()", "c.py:2: NameError: .*; perhaps Experiment"),
     ("from rmo import config\nx = config.PPPO()", "c.py:2: AttributeError: .*; perhaps PPO"),
     ("from rmo.config import PPOO", "c.py:1: rmo.config has no PPOO; perhaps PPO"),
     ("\ndef experiment()\n  pass", "c.py:2: SyntaxError: expected ':'"),
     ("def experiment(): return {}['a']", "c.py:1: KeyError: 'a'")],
)  # fmt: skip
def test_bad_config_files(tmp_path, text, message):
    path = tmp_path / "c.py"
    path.write_text(text)
    with pytest.raises(config.ConfigError, match=message) as error:
        checks.load(path)
    assert "\n" not in str(error.value)
    with pytest.raises(config.ConfigError, match=r"no config file .*cc.py; perhaps .*/c.py"):
        checks.load(tmp_path / "cc.py")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["--ppo.lr", "1"],
            r"Unrecognized options: --ppo.lr, 1; perhaps --ppo.policy-optimizer.lr \(float, now 0.0001\)",
        ),
        (["--ppo.kl_maxx", "3"], r"perhaps --ppo.kl-max \(float, now 32.0\)"),
        (["--bon.drws=5"], r"perhaps --bon.draws \(int, now 4096\)"),
        (["--proxies.sizes.0.widht", "3"], r"perhaps --proxies.sizes.0.width \(int, now 16\)"),
        (["--model-paralel", "3"], r"perhaps --model-parallel \(int, now 1\)"),
        (["--zebra", "3"], r"Unrecognized options: --zebra, 3 \(see"),
        (["--ppo.batch", "x"], "--ppo.batch"),
        (["--world.optimum", "1"], "--world.optimum"),
        (["--policy.positions", "absolute"], "rotary"),
    ],
)
def test_bad_overrides_are_one_line(args, message):
    with pytest.raises(config.ConfigError, match=message) as error:
        options.parse(RunOptions, args, "rmo run", RunOptions(BASE))
    assert "\n" not in str(error.value)


def test_every_field_can_be_overridden():
    args = [
        "--ppo.batch",
        "128",
        "--proxies.sizes.0.width",
        "32",
        "--world.optimum",
        "0.5",
        "2",
        "--proxies.sweeps.0.recipes.0.comparisons",
        "200",
        "--ppo.against.0.kl-coefs",
        "0",
        "0.1",
    ]
    got = options.parse(RunOptions, args, "rmo run", RunOptions(BASE)).experiment
    assert got.ppo.batch == 128
    assert got.proxies.sizes[0].width == 32
    assert got.world.optimum == (0.5, 2.0)
    assert got.proxies.sweeps[0].recipes[0].comparisons == 200
    assert got.ppo.against[0].kl_coefs == (0.0, 0.1)


def test_plan_is_stale_exactly_downstream():
    """A changed field renames its stage and everything after it, and nothing else."""
    base = {name: stage.path for name, stage in graph.plan(BASE).items()}
    proxy = "w16x1-main"

    def changed(**parts):
        other = {name: stage.path for name, stage in graph.plan(change(**parts)).items()}
        return {name for name in base if other.get(name) != base[name]}

    assert changed(name="other") == set()
    assert changed(fits={"bootstrap": 7}) == {"fits", "report"}
    assert changed(ppo={"clip": 0.3}) == {f"ppo/{proxy}", "ppo/gold", "fits", "report"}
    assert changed(note="read this first") == {"report"}
    assert changed(bon={"points": 9}) == {f"bon/{proxy}", "bon/gold", "fits", "report"}
    more = (config.Sweep(), config.Sweep("data", (config.Recipe(500),)))
    assert changed(proxies={"sweeps": more}) == {"fits", "report"}  # a new sweep leaves the others as they are
    assert changed(proxies={"batch": 32}) == {f"{kind}/{proxy}" for kind in ("proxies", "scores", "bon", "ppo")} | {
        "fits",
        "report",
    }
    assert changed(gold_as_proxy={"ppo_seeds": 2}) == {"ppo/gold", "fits", "report"}
    assert changed(gold_as_proxy={"pool": False}) == {"bon/gold", "tilt/gold", "fits", "report"}
    assert changed(tilt={"points": 9}) == {"tilt/gold", "fits", "report"}
    assert changed(sft={"batch": 64}) == set(base)
    assert changed(seed=1) == set(base)


def test_every_field_renames_some_stage():
    """No field can change without making something stale, but for the name and what is only memory."""
    base = {stage.path for stage in graph.plan(BASE).values()}
    for part in dataclasses.fields(BASE):
        value = getattr(BASE, part.name)
        if not dataclasses.is_dataclass(value):
            continue
        for field in dataclasses.fields(value):
            old = getattr(value, field.name)
            number = isinstance(old, int | float) and not isinstance(old, bool)
            if number and identity.MEMORY not in field.metadata:
                new = change(**{part.name: {field.name: old + 1}})
                assert {stage.path for stage in graph.plan(new).values()} != base, f"{part.name}.{field.name}"


def run_cli(*args):
    return subprocess.run([sys.executable, "-c", "from rmo.cli.main import main; main()", *args], capture_output=True, text=True,
                          cwd=ROOT, env={"PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"})  # fmt: skip


def test_command_line_errors_are_one_line():
    for args, message in [
        (["fly"], "no command 'fly'"),
        (["run"], "needs a config file"),
        (["run", "configs/none.py"], "no config file"),
        (["run", "configs/smoke.py", "--ppo.batch", "63"], "divide ppo.batch 63"),
        (["run", "configs/smoke.py", "--only", "sfft"], "no such stage"),
        (["fit", "none.csv"], "no such file"),
        (["report", "nowhere"], "there is no nowhere"),
    ]:
        got = run_cli(*args)
        assert got.returncode == 2, args
        assert message in got.stderr
        assert got.stderr.count("\n") == 1
        assert got.stderr.startswith("rmo: ")


def test_help_teaches():
    assert "rmo run CONFIG" in run_cli("--help").stdout
    text = run_cli("run", "configs/smoke.py", "--help").stdout
    for field in ("--ppo.kl-max", "--world.optimum", "--proxies.sizes.0.width", "--only"):
        assert field in text
    assert "GAE lambda" in text


def test_list_shows_every_stage():
    text = run_cli("list", "configs/smoke.py").stdout
    assert "missing" in text or "done" in text
    assert "ppo/w8x1-main" in text
