"""The programs of a plan are those that the stages run: how often, on what shapes, beside what."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from rmo import config
from rmo.config import checks
from rmo.methods.ppo.chi_squared import ChiSquared
from rmo.methods.rloo import Rloo
from rmo.planning import tpu_plan
from rmo.planning.program import bytes_on_one_device, label
from rmo.planning.programs import Program, programs
from rmo.runtime import flops, sharding
from rmo.runtime.files import RunError

SMOKE = checks.load(Path(__file__).parents[2] / "configs" / "smoke.py")
PROMPT, RESPONSE, READ = 4, 10, 40  # the last: tokens of a text to an RM with its own tokenizer
TEXT = config.Text(
    prompts="prompts.jsonl", demonstrations="demos.jsonl", prompt=PROMPT, response=RESPONSE, longest=READ
)
POLICY = config.Model(checkpoint="some/policy", vocab=24, length=64, width=16, layers=1, heads=2)
READER = dataclasses.replace(POLICY, checkpoint="some/rm", vocab=32, width=32, reads="chat")


@pytest.fixture
def mesh():
    return sharding.make_mesh(4, 2)


def changed(e: config.Experiment, **parts) -> config.Experiment:
    """An experiment with some fields of its parts changed, and known to be sound."""
    new = {
        name: dataclasses.replace(getattr(e, name), **part) if isinstance(part, dict) else part
        for name, part in parts.items()
    }
    e = dataclasses.replace(e, **new)
    checks.check(e)
    return e


def real_text(gold: config.Model, proxy: config.Model) -> config.Experiment:
    """PPO against the one proxy alone."""
    return changed(
        SMOKE, world=TEXT, policy=POLICY, gold={"kind": "checkpoint", "model": gold}, proxies={"sizes": (proxy,)},
        gold_as_proxy={"ppo_seeds": 0},
    )  # fmt: skip


def only(found: list[Program], stage: str, start: str = "") -> list[Program]:
    return [p for p in found if p.stage == stage and p.name.startswith(start)]


def shapes(tree) -> list[tuple[int, ...]]:
    return [x.shape for x in jax.tree.leaves(tree)]


def work(program: Program) -> float:
    """FLOPs of a program."""
    return flops.forward(program.fn, *program.args, loop=RESPONSE)


def test_gold_makes_no_steps_on_its_held_out_texts(mesh):
    """The stage and the plan take the number from one place; of 2,400 texts 120 are held out."""
    (step,) = only(programs(SMOKE, mesh), "gold", "step")
    assert step.calls == SMOKE.gold.epochs * (2280 // 64) == 35
    assert SMOKE.gold.train_texts + SMOKE.gold.held_out_texts == SMOKE.gold.texts == 2400
    paper = config.Gold(texts=60_000, epochs=1, batch=64)
    assert paper.train_texts // paper.batch == 890


def test_gold_draws_a_quarter_of_its_texts(mesh):
    """In 16 parts of equal shape, each at its temperature: 600 of 2,400 are 16 times 38 and fewer."""
    (draw,) = only(programs(SMOKE, mesh), "gold", "draw")
    assert draw.calls == 16
    assert (38, SMOKE.world.prompt) in shapes(draw.args)


@pytest.mark.parametrize("which", ["gold", "proxy"])
def test_ppo_reads_text_through_a_reader(mesh, which):
    """An RM with its own tokenizer sees READ tokens in PPO, not prompt + response."""
    ids, text = dataclasses.replace(READER, reads="ids"), READER
    plain = only(programs(real_text(ids, ids), mesh), "ppo")
    other = only(programs(real_text(*((text, ids) if which == "gold" else (ids, text))), mesh), "ppo")
    more = [work(b) - work(a) for a, b in zip(plain, other, strict=True)]
    sequences = {"iteration": SMOKE.ppo.batch, "read": SMOKE.bon.prompts * SMOKE.ppo.read_draws}
    for program, added in zip(other, more, strict=True):
        rows = 2 * sequences[program.name.split(",")[0]]  # of two members
        if which == "gold" and program.name.startswith("iteration"):
            assert added == 0  # which never sees gold
        else:  # at least the projections' work on as many more tokens
            assert added >= 2 * text.weights * rows * (READ - PROMPT - RESPONSE)


def test_text_is_as_long_for_every_stage(mesh):
    """Comparisons, best-of-n and proxies hold READ tokens of each text that an RM reads as text."""
    found = programs(real_text(READER, dataclasses.replace(READER, width=16)), mesh)
    members, c = SMOKE.proxies.seeds, SMOKE.bon
    (step,) = only(found, "proxies", "step")
    assert (members, SMOKE.proxies.batch, 2, READ) in shapes(step.args[1])
    (pool,) = only(found, "scores")
    assert shapes(pool.args[1:]) == [(0,), (0,), (c.draws, READ), (c.draws, READ)]
    (gold_pool,) = only(found, "samples", "score")
    assert shapes(gold_pool.args[1:]) == [(0,), (0,), (c.draws, READ), (c.draws, READ)]
    (judged,) = only(found, "comparisons", "score")
    assert shapes(judged.args[1:]) == [(128, READ)] * 2


def test_a_model_that_takes_less_than_a_text_has_its_own_length(mesh):
    short = dataclasses.replace(READER, length=24)
    (judged,) = only(programs(real_text(short, POLICY), mesh), "comparisons", "score")
    assert shapes(judged.args[1:]) == [(128, 24)] * 2


def test_programs_of_text_compile(mesh):
    """Gold and a proxy that read text: every program, for a mesh of this machine."""
    from rmo.planning.chips import Chip

    found = programs(real_text(READER, dataclasses.replace(READER, width=16)), mesh)
    rows = [tpu_plan.examine(p, mesh, Chip(1e12, 2**34, 1e11, 1e10), RESPONSE) for p in found]
    assert [row["why"] for row in rows if not row["fits"]] == []


def test_a_plan_needs_the_policys_vocabulary(mesh):
    e = real_text(READER, READER)
    own = config.Model(width=16, layers=1, heads=2)
    text = dataclasses.replace(TEXT, tokenizer="some/tokenizer")
    with pytest.raises(RunError, match=r"policy\.vocab is 0"):
        programs(dataclasses.replace(e, world=text, policy=own), mesh)


def swept(*recipes: config.Recipe) -> config.Experiment:
    return changed(SMOKE, comparisons={"prompts": 800}, proxies={"sweeps": (config.Sweep(recipes=recipes),)})


def random_numbers(program: Program) -> int:
    """How many random numbers' shapes a program makes."""
    with jax.debug_key_reuse(False):
        traced = jax.make_jaxpr(program.fn)(*program.args)
    return sum(eqn.primitive.name == "random_bits" for eqn in flops.every(traced.jaxpr))


def test_dropout_is_planned_where_a_recipe_has_it(mesh):
    """One recipe with dropout gives all members of its sweep random numbers."""
    plain = only(programs(swept(config.Recipe(1024)), mesh), "proxies", "step")[0]
    noisy = only(programs(swept(config.Recipe(1024), config.Recipe(1024, dropout=0.1)), mesh), "proxies", "step")[0]
    assert random_numbers(plain) == 0
    assert random_numbers(noisy) > 0
    assert noisy.name != plain.name


def test_early_stopping_validates_and_keeps_the_best(mesh):
    """Twenty times a training, on 1,000 comparisons; the best parameters rest beside every step."""
    found = programs(swept(config.Recipe(1024), config.Recipe(1280, stop_early=True)), mesh)
    step, validate = only(found, "proxies", "step")[0], only(found, "proxies", "validate")[0]
    parameters = bytes_on_one_device(step.args[0].params)
    assert bytes_on_one_device(step.beside) == parameters + 4 * 4  # and one loss of each of four members
    assert validate.calls == 20
    assert (checks.STOPPING, 2, PROMPT + RESPONSE) in shapes(validate.args)
    assert work(validate) > 0
    plain = only(programs(swept(config.Recipe(1024)), mesh), "proxies")
    assert not [p for p in plain if p.name.startswith("validate")]
    assert not jax.tree.leaves(plain[0].beside)


def test_comparisons_are_drawn_several_prompts_at_once(mesh):
    """300 prompts with 8 draws each in chunks of 128: 19 parts of 16 prompts, each drawn and judged in one call."""
    draw, judge = only(programs(SMOKE, mesh), "comparisons")
    assert draw.calls == judge.calls == 19
    assert shapes(draw.args[1:]) == [(128, PROMPT), (128, PROMPT), (128,)]
    assert shapes(judge.args[1:]) == [(128, PROMPT + RESPONSE)] * 2
    drawn = jax.eval_shape(draw.fn, *draw.args)
    assert drawn.tokens.shape == (128, RESPONSE)
    assert bytes_on_one_device(draw.beside) == bytes_on_one_device(judge.args[0])  # gold
    (pool,) = only(programs(SMOKE, mesh), "samples", "draw")
    assert pool.calls == SMOKE.bon.prompts


def test_best_of_n_scores_every_member_in_one_call(mesh):
    for program in only(programs(SMOKE, mesh), "scores"):
        assert program.calls == SMOKE.bon.prompts
        assert jax.eval_shape(program.fn, *program.args).shape == (SMOKE.proxies.seeds, SMOKE.bon.draws)


def test_validation_comparisons_are_scored_by_every_member(mesh):
    """30 held-out prompts with 4 pairs each are 240 texts, in two chunks of 128, of two members."""
    for program in only(programs(SMOKE, mesh), "proxies", "held-out scores"):
        assert program.calls == 2 * 2
        assert shapes(program.args[1:]) == [(128, PROMPT + RESPONSE)] * 2


def test_other_policies_are_planned(mesh):
    """Their pools, best-of-n and PPO against the main recipe, beside a main policy's own programs, which alone are of
    PPO against gold too."""
    other = config.OtherPolicy(config.Model(width=24, layers=1, heads=2), sizes=(2,))
    e = changed(SMOKE, other_policies=(other,))
    before, found = programs(SMOKE, mesh), programs(e, mesh)
    assert len(only(before, "ppo")) == 2 * 2  # an iteration and a read, against a proxy and against gold
    assert [p.name for p in only(before, "ppo") if " 1 x " in p.name] == [
        f"{what}, 1 x {label(SMOKE.gold.model)}" for what in ("iteration", "read")
    ]
    assert len(only(found, "ppo")) == len(only(before, "ppo")) + 2
    assert sum(p.calls for p in only(found, "scores")) == sum(p.calls for p in only(before, "scores")) + e.bon.prompts
    assert len({p.name for p in only(found, "ppo")}) == len(only(found, "ppo"))
    assert len({p.name for p in only(found, "samples")}) == 4


def test_ppo_rests_beside_its_history_and_first_critics(mesh):
    """Whole histories lie on every device: per read, member and prompt R tokens, their mask and the means."""
    read = only(programs(SMOKE, mesh), "ppo", "read")[0]
    critics, history = read.beside
    members, setup = SMOKE.proxies.seeds, read.fn.args[0]
    assert jax.tree.leaves(critics)[0].shape[0] == members
    tokens = setup.reads * members * SMOKE.bon.prompts * RESPONSE
    assert bytes_on_one_device(history) > tokens * (4 + 1)


def test_programs_of_one_name_take_the_largest_memory(mesh, monkeypatch):
    """PPO draws in one program whatever the proxy, but all members' proxies lie beside it."""
    large, small = (jax.ShapeDtypeStruct((n,), np.float32) for n in (8, 4))
    every = [Program("s", "p", abs, (x,), 1, (), y) for x, y in ((large, small), (small, small))]
    monkeypatch.setattr(tpu_plan, "programs", lambda e, mesh: every)
    (found,) = tpu_plan.once(SMOKE, mesh)
    assert found.calls == 2
    assert found.args == (large,)


def test_language_models_of_proxies_are_planned_beside_the_policys(mesh):
    """One per size that a sweep trains, as SFT trains a policy."""
    c = config.SFT(texts=512, epochs=3, batch=64)
    sweep = dataclasses.replace(SMOKE.proxies.sweeps[0], sizes=(0, 2))
    found = programs(changed(SMOKE, proxies={"start": "language_model", "trunk": c, "sweeps": (sweep,)}), mesh)
    steps = only(found, "trunks", "step")
    assert [step.calls for step in steps] == [3 * 512 // 64] * 2
    assert len(only(found, "trunks", "held-out loss")) == 2
    assert only(programs(SMOKE, mesh), "trunks") == []


def test_steps_of_proxies_are_planned(mesh):
    (step,) = only(
        programs(changed(SMOKE, proxies={"steps": 100, "sizes": SMOKE.proxies.sizes[:1]}), mesh), "proxies", "step"
    )
    assert step.calls == 100


def test_methods_that_share_ppos_loop_are_planned_as_they_learn(mesh):
    """RLOO holds no critic and makes none of its updates; a regulariser's coefficients are members."""
    against = config.Against("other", sizes=(0,))
    methods = (Rloo(against=(against,)), ChiSquared(against=against, coefs=(0.1, 0.2)))
    found = programs(changed(SMOKE, methods=methods, gold_as_proxy={"ppo_seeds": 0}), mesh)
    plain, penalised = only(found, "ppo", "iteration")
    (rloo,) = only(found, "rloo", "iteration")
    assert [p.name.split()[1] for p in (plain, penalised, rloo)] == ["2", "4", "2"]
    assert work(penalised) == pytest.approx(2 * work(plain), rel=1e-3)
    assert work(rloo) < 0.8 * work(plain)
    held = [sum(np.prod(shape) for shape in shapes(p.args)) for p in (plain, rloo)]
    assert held[1] < held[0]
    assert len(only(found, "rloo", "read")) == 1
