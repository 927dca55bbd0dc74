"""What a run needs at the least, by hand; what cannot fit is refused before anything is made."""

import dataclasses
import math
from pathlib import Path

import jax
import pytest

from rmo import config
from rmo.config import checks
from rmo.planning import memory, programs
from rmo.planning.program import Sketch, bytes_on_one_device
from rmo.runtime import sharding
from tests.faults.command import call, problem
from tests.helpers.smoke import ROOT, SMOKE

LAPTOP = ("smoke", "tiny", "paper_tiny", "chat", "chat_small", "methods_tiny")


@pytest.fixture(scope="module")
def one():
    return sharding.make_mesh(1)


def bytes_of(e, mesh, stage):
    return max(need.bytes for need in memory.needs(e, mesh) if need.stage == stage)


def by_hand(width, hidden, head):
    """Parameters of one layer of this config: tied embedding of 24 tokens, four projections, two of the MLP, three
    norms, and an RM's head with its bias."""
    return 24 * width + 4 * width * width + 2 * width * hidden + 3 * width + (width + 1 if head else 0)


def test_needs_by_hand(one):
    """Smoke: 14 tokens, one layer, float32; the policy is 16 wide, gold 32, the largest proxy 24; 64 rows a batch."""
    assert bytes_of(SMOKE, one, "sft") == 4 * (4 * by_hand(16, 64, False)) + 64 * 14 * 16 * 4
    assert bytes_of(SMOKE, one, "gold") == 4 * (4 * by_hand(32, 128, True)) + 64 * 14 * 32 * 4
    assert bytes_of(SMOKE, one, "proxies") == 2 * (4 * (4 * by_hand(24, 96, True)) + 2 * 64 * 14 * 24 * 4)
    pool = 128 * 14 * 5
    assert bytes_of(SMOKE, one, "samples") == 4 * (by_hand(16, 64, False) + by_hand(32, 128, True)) + pool


@pytest.mark.parametrize("name", LAPTOP)
def test_what_is_counted_by_hand_is_more(name, one):
    """So that small experiments are spared the tracing of their models."""
    e = checks.load(ROOT / "configs" / f"{name}.py")
    most, by_hand = max(need.bytes for need in memory.needs(e, one)), memory.generous(memory.Shapes(e, one))
    assert most < by_hand < math.inf


HUGE = {
    "sft": {"batch": 2**17}, "gold": {"batch": 2**17}, "proxies": {"batch": 2**17}, "ppo": {"batch": 2**19},
    "bon": {"draws": 2**26}, "policy": {"width": 2048}, "comparisons": {},
}  # fmt: skip


@pytest.mark.parametrize("part", [*HUGE, "gold.trunk", "proxies.trunk", "gold.model", "seeds", "devices"])
def test_no_part_is_forgotten_when_counted_by_hand(part, one):
    """Whatever makes an experiment large makes the generous count larger."""
    trunk = dataclasses.replace(SMOKE.proxies.trunk, texts=2**18, batch=2**17)
    changes = {
        "gold.trunk": {"gold": dataclasses.replace(SMOKE.gold, start="language_model", trunk=trunk)},
        "proxies.trunk": {"proxies": dataclasses.replace(SMOKE.proxies, start="language_model", trunk=trunk)},
        "gold.model": {"gold": dataclasses.replace(SMOKE.gold, kind="random", model=dataclasses.replace(SMOKE.gold.model, vocab=2**20))},
        "seeds": {"proxies": dataclasses.replace(SMOKE.proxies, seeds=2**10)},
        "devices": {},
    }  # fmt: skip
    changed = (
        changes.get(part) or {part: dataclasses.replace(getattr(SMOKE, part), **HUGE.get(part, {}))}
        if part != "devices"
        else {}
    )
    e = dataclasses.replace(SMOKE, **changed)
    mesh = sharding.make_mesh() if part == "devices" else one
    most = max(need.bytes for need in memory.needs(e, mesh))
    assert most < memory.generous(memory.Shapes(e, mesh))


def test_settings_that_take_less(one):
    """The advice is true: parts of a batch, smaller batches, fewer seeds."""
    p = SMOKE.proxies
    base = bytes_of(SMOKE, one, "proxies")
    for less in (
        dataclasses.replace(p, batch=32),
        dataclasses.replace(p, seeds=1),
        dataclasses.replace(p, optimizer=dataclasses.replace(p.optimizer, accumulate=4)),
    ):
        assert bytes_of(dataclasses.replace(SMOKE, proxies=less), one, "proxies") < base


def test_it_is_a_lower_bound_of_what_the_compiler_takes(one):
    """Nothing that would fit is refused: the compiled training steps of smoke hold at least as much."""
    sketch = Sketch(SMOKE, one)
    steps = [p for stage in (programs.sft, programs.gold, programs.proxies) for p in stage(sketch) if "step" in p.name]
    for stage in ("sft", "gold", "proxies"):
        taken = []
        for program in (p for p in steps if p.stage == stage):
            with jax.set_mesh(one):
                compiled = (
                    jax.jit(program.fn, donate_argnums=program.donated, keep_unused=True).lower(*program.args).compile()
                )
            held = compiled.memory_analysis()
            made = held.argument_size_in_bytes + held.output_size_in_bytes - held.alias_size_in_bytes
            taken.append(made + held.temp_size_in_bytes + bytes_on_one_device(program.beside))
        assert 0 < bytes_of(SMOKE, one, stage) <= max(taken), stage


@pytest.mark.parametrize("name", LAPTOP)
def test_what_is_meant_for_laptops_is_taken_at_4_gib(name, one):
    e = checks.load(ROOT / "configs" / f"{name}.py")
    stages = {need.stage for need in memory.needs(e, one)}
    assert memory.too_large(e, one, 4 * 2**30, stages) == ""


def test_a_pod_s_config_is_refused_on_a_laptop_and_not_where_it_fits(one):
    e = checks.load(ROOT / "configs" / "paper.py")
    said = memory.too_large(e, one, 16 * 2**30, {"sft", "ppo"})
    assert said.startswith("ppo needs ")
    assert "this machine has 16.0 GiB" in said
    assert "\n" not in said
    assert len(said) < 600
    assert memory.too_large(e, one, 2**50, {"sft", "ppo"}) == ""
    assert memory.too_large(e, one, 0, {"sft", "ppo"}) == ""  # nobody says what there is
    assert memory.too_large(e, one, 1, {"fits"}) == ""  # done, or not asked for


def test_a_control_group_s_limit_counts(one, tmp_path, monkeypatch):
    for name, text in (("max", "max\n"), ("some", f"{3 * 2**20}\n")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "CGROUPS", [tmp_path / "max", tmp_path / "absent"])
    assert memory.machine(one) > 2**28
    monkeypatch.setattr(memory, "CGROUPS", [tmp_path / "max", tmp_path / "some"])
    assert memory.machine(one) == 3 * 2**20


def test_an_accelerator_says_what_its_device_may_hold():
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 5}

    class Mesh:
        class local_mesh:
            class devices:
                flat = (Device(),)

    assert memory.machine(Mesh()) == 5  # type: ignore[arg-type]


def test_rmo_run_refuses_in_one_line_and_starts_all_the_same_where_told(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "machine", lambda mesh: 2**16)
    smoke = str(Path(ROOT / "configs" / "smoke.py"))
    ended = call(["run", smoke], tmp_path)
    assert not problem(ended, tmp_path)
    assert ended.code == 2
    assert " of memory at the least" in ended.err
    assert "--try-anyway" in ended.err
    assert "lower" in ended.err
    assert call(["run", smoke, "--only", "fits"], tmp_path).code == 0  # needs nothing of what is too large
    assert call(["run", smoke, "--try-anyway"], tmp_path).code == 0
    assert "--try-anyway" in call(["run", smoke, "--help"], tmp_path).out


def test_huge_sizes_are_counted_not_made(one):
    huge = config.Model(width=2**20, layers=64, heads=2**13)
    e = dataclasses.replace(SMOKE, policy=huge)
    # 12 width^2 parameters a block, 16 bytes each while trained.
    assert bytes_of(e, one, "sft") > 16 * 12 * 2**40 * 64
