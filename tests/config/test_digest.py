"""A stage keeps its directory where no number changes, and never where one may."""

import dataclasses
import json
from pathlib import Path

import pytest

from rmo import config
from rmo.config import checks, identity
from rmo.experiment import graph

ROOT = Path(__file__).parents[2]
CLASSES = [
    config.Optimizer, config.World, config.Text, config.SFT, config.Gold, config.Comparisons, config.Recipe,
    config.Combined, config.Ensemble, config.Sweep, config.Proxies, config.BestOfN, config.Against, config.PPO, config.Tilt,
    config.GoldAsProxy, config.OtherPolicy, config.Fits, config.Model, config.Experiment,
]  # fmt: skip
MARKED = {("Model", "remat"), ("Optimizer", "accumulate"), ("BestOfN", "chunk"), ("PPO", "chunk")}
TINY = checks.load(ROOT / "configs" / "tiny.py")
# Between them they hold every class: real text and a second policy too.
SWEEPS = (dataclasses.replace(TINY.proxies.sweeps[0], combined=(config.Combined(),)), *TINY.proxies.sweeps[1:])
EVERY = dataclasses.replace(
    TINY,
    other_policies=(config.OtherPolicy(config.Model(width=32)),),
    proxies=dataclasses.replace(TINY.proxies, sweeps=SWEEPS),
    ensembles=(config.Ensemble(),),
)
TEXT = dataclasses.replace(EVERY, world=config.Text(prompts="prompts.jsonl", tokenizer="some"))


def paths(experiment):
    return {name: stage.path for name, stage in graph.plan(experiment).items()}


def rebuilt(value, change):
    """A value with every dataclass inside it, and itself, put through `change`, the innermost first."""
    if isinstance(value, tuple):
        return tuple(rebuilt(item, change) for item in value)
    if not dataclasses.is_dataclass(value):
        return value
    fields = {f.name: rebuilt(getattr(value, f.name), change) for f in dataclasses.fields(value)}
    return change(dataclasses.replace(value, **fields))


def grown(cls, **values):
    """A function that gives values of a class one field more, with a default."""
    more = dataclasses.make_dataclass(cls.__name__, [("added", int, 7)], bases=(cls,), frozen=True)

    def grow(value):
        if type(value) is not cls:
            return value
        return more(**{f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, **values)

    return grow


def variants(value):
    """(class and name of the field, the value with that field as something else) of every field at every depth."""
    if isinstance(value, tuple):
        for i, item in enumerate(value):
            for field, other in variants(item):
                yield field, (*value[:i], other, *value[i + 1 :])
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            old = getattr(value, field.name)
            for at, other in variants(old):
                yield at, dataclasses.replace(value, **{field.name: other})
            for other in others(old):
                yield (type(value).__name__, field.name), dataclasses.replace(value, **{field.name: other})


def others(old):
    """Other values of a field's type; of a dataclass none, as its own fields are changed."""
    if isinstance(old, bool):
        return [not old]
    if isinstance(old, int | float):
        return [old + 1, old + 2]
    if isinstance(old, str):
        return [old + "x", old + "y"]
    if isinstance(old, tuple):
        return [(*old, *(old[:1] or (3,))), *([old[1:]] if old else [])]
    return []


@pytest.mark.parametrize("cls", CLASSES)
def test_a_new_field_with_a_default_renames_no_stage(cls):
    for experiment in (TINY, EVERY, TEXT):
        assert paths(rebuilt(experiment, grown(cls))) == paths(experiment)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_new_field_with_another_value_counts(cls):
    given = [config.digest(e) != config.digest(rebuilt(e, grown(cls, added=8))) for e in (EVERY, TEXT)]
    assert any(given)


def test_the_list_of_classes_is_whole():
    met = set()
    for experiment in (EVERY, TEXT):
        rebuilt(experiment, lambda value: met.add(type(value)) or value)
    assert met == set(CLASSES)


@pytest.mark.parametrize("base", [TINY, TEXT, config.Experiment()], ids=["tiny", "text", "defaults"])
def test_every_field_counts_but_the_marked_ones(base):
    """Each digest is met once: no two values of one field, and no two fields, are taken for one another."""
    met = {config.digest(base): base}
    for field, other in variants(base):
        if field in MARKED:
            assert config.digest(other) == config.digest(base), field
        else:
            twin = met.setdefault(config.digest(other), other)
            assert twin == other, field


def test_memory_settings_keep_every_stage():
    def frugal(value):
        less = {config.Model: {"remat": "full"}, config.Optimizer: {"accumulate": 2}}
        less |= {config.BestOfN: {"chunk": 64}, config.PPO: {"chunk": 32}}
        return dataclasses.replace(value, **less.get(type(value), {}))

    for experiment in (TINY, EVERY, TEXT, config.Experiment()):
        changed = rebuilt(experiment, frugal)
        assert changed != experiment
        assert paths(changed) == paths(experiment)


def test_precision_does_not():
    bfloat16 = dataclasses.replace(TINY, policy=dataclasses.replace(TINY.policy, dtype="bfloat16"))
    assert paths(bfloat16)["sft"] != paths(TINY)["sft"]


def test_a_default_in_another_place_is_told_from_the_default_there():
    """Gold's model is not `Model()`: what is left out is what its own owner has as its default."""
    assert config.digest(config.Gold(model=config.Model())) != config.digest(config.Gold())
    assert config.digest(config.Gold(model=config.Gold().model)) == config.digest(config.Gold())


def test_types_and_nestings_do_not_collide():
    @dataclasses.dataclass
    class Needed:
        size: int

    parts = [
        config.World(), config.Text(), config.SFT(), (), "World", None, 0, "", {}, ("World",), [config.World()],
        {"World": {}}, (config.World(), config.Text()), (config.Text(), config.World()), Needed(0), Needed(1),
    ]  # fmt: skip
    assert len({config.digest(part) for part in parts}) == len(parts)
    assert config.digest(1, 2) != config.digest((1, 2))
    assert config.digest((1, 2)) == config.digest([1, 2])
    with pytest.raises(TypeError):
        config.digest(Path("somewhere"))


def test_a_changed_default_is_a_new_stage():
    """Stages made with the old default keep their name, those with the new one get another."""

    def optimizer(lr):
        return dataclasses.make_dataclass("Optimizer", [("lr", float, lr)])

    was, now = optimizer(0.1), optimizer(identity.changed(0.2, old=0.1))
    assert config.digest(now(0.1)) == config.digest(was())
    assert config.digest(now()) == config.digest(was(0.2))


def test_no_default_changes_unnoticed():
    """Fields at their default are in no digest, so after a change of a default alone old results would be taken for
    those of the new one. tests/data/config_defaults.json holds the value at which each field is left out."""
    file = ROOT / "tests" / "data" / "config_defaults.json"
    kept = json.loads(file.read_text())
    for cls in CLASSES:
        for field in dataclasses.fields(cls):
            if identity.MEMORY in field.metadata:
                continue
            name, new = f"{cls.__name__}.{field.name}", json.loads(json.dumps(identity.content(default(field))))
            assert name in kept, f'a new field: add "{name}": {json.dumps(new)} to {file}'
            old = kept[name]
            advice = f"declare it as changed({new!r}, old={old!r}) (rmo/config/identity.py)"
            assert new == old, f"the default of {name} was {old!r} and is {new!r}: {advice}"


def default(field):
    """What a field is left out at; None where it has no default."""
    value = identity.left_out_at(field)
    return None if value is dataclasses.MISSING else value
