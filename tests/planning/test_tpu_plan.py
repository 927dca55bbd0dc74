"""What a plan counts, against counts by hand; every program of the smoke config compiled for a mesh of this machine."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmo import config
from rmo.config import checks
from rmo.methods.ppo import loop as ppo_loop
from rmo.methods.ppo import update as ppo
from rmo.models import transformer
from rmo.models.sampling import sample
from rmo.planning import tpu_plan
from rmo.planning.chips import CHIPS, GPUS, SLICES, Chip, topology
from rmo.planning.hlo import collectives
from rmo.planning.program import Program
from rmo.planning.programs import programs
from rmo.runtime import sharding
from rmo.runtime.files import RunError
from rmo.runtime.flops import matmuls
from tests.methods.test_ppo import make

SMOKE = checks.load(Path(__file__).parents[2] / "configs" / "smoke.py")


def test_matmuls_by_hand():
    """A scan counts its length, a loop of unknown length the response's."""
    w = jnp.zeros((3, 8, 8))

    def layers(x):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]

    def loop(x):
        return jax.lax.while_loop(lambda c: c[0] < 9, lambda c: (c[0] + 1, layers(c[1])), (0, x))[1]

    one = 2.0 * 4 * 8 * 8
    count = lambda f: matmuls(jax.make_jaxpr(f)(jnp.zeros((4, 8))).jaxpr, 5)
    assert count(layers) == (3 * one, 3 * 4 * (4 * 8 + 8 * 8 + 4 * 8))
    assert count(jax.jit(loop))[0] == 5 * 3 * one


def test_flops_of_a_model_are_twice_its_weights():
    shape = config.Model(width=32, layers=2, heads=4)
    rm = transformer.RewardModel(shape, 16, 8)
    params = jax.eval_shape(lambda: transformer.init(rm, jax.random.key(0)))
    tokens = jnp.zeros((4, 8), jnp.int32)
    found = matmuls(jax.make_jaxpr(lambda p: transformer.values(rm, p, tokens, tokens > -1))(params).jaxpr, 1)[0]
    attention = 2 * 2 * 2 * 4 * 4 * 8 * 8 * 8  # two products of T x T x head for every layer, row and head
    assert found == 2 * shape.weights * 4 * 8 + attention + 2 * 32 * 32


HLO = """HloModule m
%body.1 (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %ag = f32[64]{0} all-gather(f32[8]{0} %x), dimensions={0}
}
%cond.1 (p: (s32[], f32[8])) -> pred[] {
  %c = s32[] constant(24)
}
%decode_body (p: s32[]) -> s32[] {
  %w = (s32[], f32[8]) while((s32[], f32[8]) %t), condition=%cond.1, body=%body.1, metadata={op_name="jit(f)/decode/while/body/while"}
}
%decode_cond (p: s32[]) -> pred[] {
  %c2 = s32[] constant(10)
}
ENTRY %main (a: f32[8]) -> f32[8] {
  %r = bf16[4,4]{1,0} all-reduce(bf16[4,4]{1,0} %y), to_apply=%add
  %w2 = s32[] while(s32[] %u), condition=%decode_cond, body=%decode_body, metadata={op_name="jit(f)/decode/while"}
  %w3 = (s32[], f32[8]) while((s32[], f32[8]) %v), condition=%cond.1, body=%body.1, metadata={op_name="jit(f)/while"}
}
"""


def test_collectives_are_counted_where_they_run():
    found = {(c["kind"], c["decode"]): (c["bytes"], c["times"]) for c in collectives(HLO)}
    assert found == {("all-gather", True): (256, 240), ("all-gather", False): (256, 24), ("all-reduce", False): (32, 1)}


@pytest.fixture(scope="module")
def rows():
    mesh = sharding.make_mesh(4, 2)
    chip = Chip(1e12, 2**34, 1e11, 1e10)
    return [tpu_plan.examine(program, mesh, chip, SMOKE.world.response) for program in programs(SMOKE, mesh)]


@pytest.mark.slow
def test_every_program_of_a_config(rows):
    kinds = [row["stage"] for row in rows]
    assert kinds.count("scores") == 3  # sizes
    assert kinds.count("proxies") == 2 * 3  # each trained, and scored on the validation comparisons
    assert set(kinds) == {"sft", "gold", "samples", "comparisons", "proxies", "scores", "ppo"}
    for row in rows:
        assert row["fits"], row
        assert row["flops"] > 0
        assert row["total"] > 0
        assert row["seconds"] > 0
    text = tpu_plan.table(
        {"topology": "here", "chips": 8, "mesh": {"data": 4, "model": 2}, "programs": rows, "chip_hours": 1.0}
    )
    assert text.count("\n| ") == len(rows) + 1


def test_nothing_is_gathered_in_the_decode_loop(monkeypatch):
    """Where parameters lie split over `data`, they are fetched once, before the loop; without that, in every step."""
    monkeypatch.setattr(sharding, "SMALL", 32)
    mesh = sharding.make_mesh(8, 1)
    lm = transformer.LanguageModel(config.Model(width=16, layers=2, heads=2), 32, 12)
    shapes = jax.eval_shape(lambda: transformer.init(lm, jax.random.key(0)))
    at = sharding.shardings_of(shapes, mesh)
    params = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, at)
    prompts, keys = jnp.zeros((16, 4), jnp.int32), jax.random.split(jax.random.key(0), 16)

    def inside(fn):
        with jax.set_mesh(mesh):
            text = jax.jit(fn).lower(params, prompts, prompts > -1, keys).compile().as_text()
        return [
            c for c in collectives(text or "") if c["decode"] and c["bytes"] > 8
        ]  # whether all rows ended is one bit

    assert not inside(lambda p, x, m, k: sample(lm, p, x, m, k, 8, 2))
    monkeypatch.setattr(transformer, "UNROLLED", 0)  # as for large models: a loop over layers within
    monkeypatch.setattr(transformer, "WRITTEN_OUT", 0)
    assert not inside(lambda p, x, m, k: sample(lm, p, x, m, k, 8, 2))
    monkeypatch.setattr(sharding, "gathered", lambda params, dtype: params)
    found = inside(lambda p, x, m, k: sample(lm, p, x, m, k, 8, 2))
    assert max(c["times"] for c in found) >= 8 * 2  # every step, every layer


@pytest.mark.parametrize("vocab", [2048, 1088, 1536])
def test_no_device_needs_anothers_logits_to_draw(vocab):
    """Where the vocabulary is split, a token is drawn without a row of logits on any one device."""
    mesh = sharding.make_mesh(4, 2)
    lm = transformer.LanguageModel(config.Model(width=64, layers=1, heads=2), vocab, 12)
    shapes = jax.eval_shape(lambda: transformer.init(lm, jax.random.key(0)))
    at = sharding.shardings_of(shapes, mesh)
    assert "model" in at["trunk"]["embed"]["embedding"].spec
    params = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, at)
    prompts, keys = jnp.zeros((16, 4), jnp.int32), jax.random.split(jax.random.key(0), 16)
    with jax.set_mesh(mesh):
        fn = jax.jit(lambda p, x, m, k: sample(lm, p, x, m, k, 8, 2))
        text = fn.lower(params, prompts, prompts > -1, keys).compile().as_text()
    found = [c for c in collectives(text or "") if c["decode"]]
    assert found
    assert max(c["bytes"] for c in found) < 4 * vocab  # one row; a device has four


@pytest.mark.parametrize("side_by_side", [True, False])
def test_a_read_in_chunks_moves_nothing_in_the_decode_loop(side_by_side):
    """Every device works on its own rows of each chunk, not on chunks of its own."""
    setup, frozen, members, critics = make(chunk=16, read_draws=16)
    setup = dataclasses.replace(setup, side_by_side=side_by_side)
    states = jax.vmap(lambda critic: ppo.begin(setup, frozen.reference, critic))(critics)
    with jax.set_mesh(sharding.make_mesh(8, 1)):
        text = ppo_loop.read.lower(setup, frozen, members, states).compile().as_text()
    found = [c for c in collectives(text or "") if c["decode"]]
    assert found  # has everybody ended?
    assert max(c["bytes"] for c in found) <= 8


def test_refusals():
    with pytest.raises(RunError, match="known chips are v4, v5e, v5p, v6e"):
        tpu_plan.topology("v9:2x2", 1)


@pytest.mark.slow
def test_for_a_real_slice():
    """With libtpu (pip install libtpu): the smoke config for 16 chips."""
    pytest.importorskip("libtpu")
    found = tpu_plan.plan(SMOKE, "v5e:4x4")
    assert all(row["fits"] for row in found["programs"])


@pytest.fixture
def fake_slices(monkeypatch):
    """Slices of a given size without libtpu, and which (devices, model axis, program) were tried on them."""
    tried = []

    def examine(program, mesh, *_):
        tried.append((mesh.size, mesh.shape["model"], program.name))
        need = {"small": 4, "large": 40}[program.name] / mesh.size / (2 if mesh.shape["model"] > 1 else 1)
        row = {"fits": need <= 3, "why": f"needs {need}", "seconds": 3600.0}
        return row | {"stage": program.stage, "program": program.name, "calls": program.calls}

    def topology(name, model):
        size = int(np.prod([int(x) for x in name.split(":")[1].split("x")]))
        return SimpleNamespace(size=size, shape={"data": size // model, "model": model}), CHIPS["v5e"]

    both = [Program("s", name, None, (), 1) for name in ("small", "large", "large")]  # two sweeps of one shape
    monkeypatch.setattr(tpu_plan, "examine", examine)
    monkeypatch.setattr(tpu_plan, "topology", topology)
    monkeypatch.setattr(tpu_plan, "programs", lambda e, mesh: both)
    return tried


def test_suggest_takes_the_smallest_slice_that_fits_all(monkeypatch, capsys, fake_slices):
    """What did not fit is tried first on the next; a slice is never split over more devices than needed."""
    tried = fake_slices
    found = tpu_plan.suggest(SMOKE, "v5e")
    assert (found["topology"], found["mesh"]["model"]) == ("v5e:2x4", 2)
    assert found["chip_hours"] == 8 * (1 + 2)  # both sweeps' calls
    assert len(tried) == len(set(tried))  # nothing is compiled twice
    assert tried[:3] == [(4, 1, "small"), (4, 1, "large"), (4, 2, "large")]
    assert "v5e:2x2, --model-parallel 1: s, large needs 10" in capsys.readouterr().out
    monkeypatch.setattr(tpu_plan, "examine", lambda *_: {"fits": False, "why": ""})
    with pytest.raises(RunError, match="no slice of v5e up to 16x16 fits"):
        tpu_plan.suggest(SMOKE, "v5e")


def test_a_program_that_does_not_fit_says_where_it_would(fake_slices):
    found = tpu_plan.plan(SMOKE, "v5e:2x4")
    why = {row["program"]: row["why"] for row in found["programs"]}
    assert why == {"small": "needs 0.5", "large": "needs 5.0; v5e:4x4 can hold it"}
    assert [size for size, _, name in fake_slices if name == "large"] == [8, 16]  # nothing smaller, nothing further


def test_a_plan_that_was_stopped_goes_on(tmp_path, monkeypatch, fake_slices):
    """Every program is written as it is made, and is not compiled again; another plan's file is not overwritten."""
    out, examine = tmp_path / "plan.json", tpu_plan.examine

    def killed(program, *rest):
        if program.name == "large":
            raise KeyboardInterrupt
        return examine(program, *rest)

    monkeypatch.setattr(tpu_plan, "examine", killed)
    with pytest.raises(KeyboardInterrupt):
        tpu_plan.plan(SMOKE, "v5e:4x4", out=out)
    assert [row["program"] for row in json.loads(out.read_text())["programs"]] == ["small"]
    monkeypatch.setattr(tpu_plan, "examine", examine)
    found = tpu_plan.plan(SMOKE, "v5e:4x4", out=out)
    assert json.loads(out.read_text()) == found == tpu_plan.plan(SMOKE, "v5e:4x4")
    assert [name for *_, name in fake_slices] == ["small", "large", "small", "large"]  # the last two: without `out`
    assert [row["program"] for row in tpu_plan.plan(SMOKE, "v5e:4x4", only=("large",), out=out)["programs"]] == [
        "large"
    ]
    before = out.read_bytes()
    with pytest.raises(RunError, match="of another experiment or mesh"):
        tpu_plan.plan(SMOKE, "v5e:8x8", out=out)
    assert out.read_bytes() == before
    out.write_text("[1]")
    with pytest.raises(RunError, match="not a plan"):
        tpu_plan.plan(SMOKE, "v5e:4x4", out=out)


def test_gpus_of_one_machine():
    for kind in GPUS:
        assert [topology(f"{kind}:{count}", 1)[0].size for count in SLICES[kind]] == [1, 2, 4, 8]
        assert topology(kind, 1)[0].size == 1
    mesh, chip = topology("h100:8", 2)
    assert dict(mesh.shape) == {"data": 4, "model": 2}
    assert chip.usable == pytest.approx(0.75 * 79.6 * 2**30)
    for name, said in (("h100:3", "a machine has 1, 2, 4, 8"), ("b9:1", "known chips"), ("h100:2x2", "a machine has")):
        with pytest.raises(RunError, match=said):
            topology(name, 1)
    with pytest.raises(RunError, match="must divide the 1 devices"):
        topology("h100:1", 2)


def test_a_plan_for_a_gpu_says_whose_temporaries_they_are(tmp_path):
    found = tpu_plan.plan(SMOKE, "a100:1", only=("gold",))
    assert found["programs"]
    assert all(row["fits"] and row["seconds"] > 0 and not row["collectives"] for row in found["programs"])
    text = tpu_plan.table(found)
    assert "a100:1: 1 chips" in text
    assert "Temporaries are those of XLA's CPU compiler" in text


def test_the_smallest_machine_that_fits_may_have_one_gpu(monkeypatch):
    monkeypatch.setattr(tpu_plan, "once", lambda e, mesh: [p for p in programs(e, mesh) if p.stage == "sft"])
    assert tpu_plan.suggest(SMOKE, "h200")["topology"] == "h200:1"
