"""Proxies: what they start from, how long they are trained, and that a killed training goes on bit for bit."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from rmo.artifacts.stages import Comparisons, Policy, Proxies
from rmo.config import SFT, Optimizer, Recipe, Sweep
from rmo.experiment import graph, runner
from rmo.experiment.stages import proxies as stage
from rmo.runtime import hosts, sharding
from rmo.worlds import comparisons
from tests.helpers.smoke import SMOKE


def changed(sweeps=SMOKE.proxies.sweeps, **fields):
    return dataclasses.replace(SMOKE, proxies=dataclasses.replace(SMOKE.proxies, sweeps=sweeps, **fields))


PRETRAINED = changed(start="language_model", trunk=SFT(texts=512, epochs=1, batch=64, optimizer=Optimizer(lr=1e-2)))


def compared(e, root):
    """A run whose comparisons are there: pairs of texts of the corpus, the longer one preferred."""
    run = graph.open_run(e, root, sharding.make_mesh(1))
    files, size = Comparisons(run.path("comparisons")), 1080 + 120
    texts = [run.world.demonstrations(np.random.default_rng(side), size) for side in range(2)]
    tokens, mask = (np.stack(parts, 1) for parts in zip(*(text.sequences() for text in texts), strict=True))
    order = np.argsort(-mask.sum(-1), axis=1)[..., None]
    tokens, mask = (np.take_along_axis(x, order, 1) for x in (tokens, mask))
    every = comparisons.Comparisons(tokens, mask, mask.sum(-1).astype(np.float32), np.arange(size, dtype=np.int32))
    train, held = (comparisons.Comparisons(*(x[rows] for x in every)) for rows in (slice(1080), slice(1080, None)))
    comparisons.write_comparisons(files.dataset, train=train, validation=held)
    files.write_cost({"seconds": 0.0})
    files.mark_done("comparisons")
    return run


def equal(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def test_trunks_come_before_the_proxies_of_their_size_and_nothing_else():
    plain, pretrained = (graph.plan(e) for e in (SMOKE, PRETRAINED))
    assert set(pretrained) - set(plain) == {"trunks/w8x1", "trunks/w16x1", "trunks/w24x1"}
    assert [s.name for s in pretrained["proxies/w16x1-main"].upstream] == ["comparisons", "trunks/w16x1"]
    renamed = {name.split("/")[0] for name in plain if plain[name].path != pretrained[name].path}
    assert renamed == {"proxies", "scores", "bon", "ppo", "fits", "report"}
    longer = changed(start="language_model", trunk=dataclasses.replace(PRETRAINED.proxies.trunk, epochs=2))
    assert graph.plan(longer)["proxies/w8x1-main"].path != pretrained["proxies/w8x1-main"].path
    unused = changed(trunk=SFT(texts=99))  # settings of what is not made
    assert graph.plan(unused)["proxies/w8x1-main"].path == plain["proxies/w8x1-main"].path


def test_only_sizes_without_a_checkpoint_that_are_trained_have_a_trunk():
    small, middle, large = PRETRAINED.proxies.sizes
    sizes = small, dataclasses.replace(middle, checkpoint="some/model"), large
    two = dataclasses.replace(SMOKE.proxies.sweeps[0], sizes=(0, 1))
    e = changed((two,), sizes=sizes, start="language_model")
    assert [name for name in graph.plan(e) if name.startswith("trunks/")] == ["trunks/w8x1"]


def test_all_seeds_start_from_the_language_models_trunk(tmp_path, monkeypatch):
    run = compared(PRETRAINED, tmp_path)
    runner.execute(run, ("trunks/w8x1",))
    info = Policy(run.path("trunks/w8x1")).read()
    assert info.steps == 512 // 64
    assert info.held_out_loss is not None
    assert info.held_out_loss < np.log(SMOKE.world.vocab)
    shape = SMOKE.proxies.sizes[0]
    trunk = run.load("trunks/w8x1", run.trunk_model(shape), master=True)["trunk"]
    assert not equal(trunk, run.first(run.trunk_model(shape), run.key("trunks")).init()["trunk"])
    begun = {}

    def train(first, *args, **options):
        begun.update(first.load())
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stage, "train", train)
        with pytest.raises(KeyboardInterrupt):
            runner.execute(run, ("proxies/w8x1-main",))
    for seed in range(SMOKE.proxies.seeds):
        assert equal(jax.tree.map(lambda x, i=seed: x[i], begun["trunk"]), trunk)
    first, second = begun["head"]["kernel"]
    assert not np.array_equal(first, second)


def test_a_training_that_was_stopped_ends_in_the_same_proxies(tmp_path, monkeypatch):
    names, trained = ("trunks/w8x1", "proxies/w8x1-main"), []
    for stops in ((), (3, 11)):
        run = compared(PRETRAINED, tmp_path / str(len(stops)))
        for at in stops:
            asked = iter(range(at))
            with monkeypatch.context() as patched:
                patched.setattr(hosts, "preempted", lambda asked=asked: next(asked, None) is None)
                with pytest.raises(hosts.Preempted):
                    runner.execute(run, names)
        runner.execute(run, names)
        trained.append(run.load(names[1], run.rm(SMOKE.proxies.sizes[0]), SMOKE.proxies.seeds, master=True))
    assert equal(*trained)


def test_steps_say_how_long_every_recipe_without_epochs_is_trained(tmp_path):
    """On few comparisons as often over them as that takes; tables call it plain, and one epoch an epoch."""
    recipes = Recipe(128), Recipe(1024), Recipe(128, epochs=1), Recipe(128, epochs=4), Recipe(128, flip=0.1)
    e = changed((Sweep(recipes=recipes, sizes=(0,)),), steps=10, seeds=1)
    run = compared(e, tmp_path)
    runner.execute(run, ("proxies/w8x1-main",))
    rows = Proxies(run.path("proxies/w8x1-main")).rows()
    assert [row.steps for row in rows] == [10, 10, 2, 8, 10]
    assert [str(row.recipe) for row in rows] == ["", "", "epochs=1", "epochs=4", "flip=0.1"]
    order = stage.order_of(run, np.arange(1080), Recipe(128), 0)
    seen = np.bincount(np.concatenate([order.batch(step) for step in range(order.steps)]))
    assert (seen == 5).all()
    assert len(seen) == 128


def test_all_plain_recipes_may_keep_their_validation_minimum(tmp_path):
    """Then nothing that they train on is watched; recipes with epochs or flipped labels stay as they are."""
    recipes = Recipe(64), Recipe(64, epochs=2), Recipe(64, flip=0.1), Recipe(64, epochs=2, stop_early=True)
    p = changed((Sweep(recipes=recipes, sizes=(0,)),), steps=10, stop_early=True).proxies
    assert [p.stops_early(recipe) for recipe in recipes] == [True, False, False, True]
    run = graph.open_run(dataclasses.replace(SMOKE, proxies=p), tmp_path)
    assert max(stage.order_of(run, np.arange(1080), recipes[0], 0).used) < 80
    assert max(stage.order_of(run, np.arange(1080), recipes[1], 0).used) >= 80


def test_half_of_the_labels_are_spent_where_rms_of_the_other_half_are_unsure(tmp_path):
    whole, half = Recipe(256, choice="uncertain"), Recipe(128)
    random = Sweep(recipes=(half, Recipe(256)), sizes=(0,))
    e = changed((random, Sweep("active", (whole, Recipe(256, choice="disagreement")), (0,), first="main")), steps=10)
    run = compared(e, tmp_path)
    runner.execute(run, ("proxies/w8x1-main", "proxies/w8x1-active"))
    rows = Proxies(run.path("proxies/w8x1-active")).rows()
    assert [str(row.recipe) for row in rows] == ["choice=uncertain"] * 2 + ["choice=disagreement"] * 2
    assert {row.comparisons for row in rows} == {256}

    kept = run.reader("", SMOKE.proxies.sizes[0]).comparisons(
        comparisons.read_comparisons(Comparisons(run.path("comparisons")).dataset, "train")
    )
    rm = run.rm(SMOKE.proxies.sizes[0])
    gaps = stage.gaps_of(run, "proxies/w8x1-main", rm, half, kept)
    assert gaps.shape == (SMOKE.proxies.seeds, 1080)
    for seed in range(SMOKE.proxies.seeds):
        first = stage.order_of(run, kept.prompt, half, seed).used
        used = stage.order_of(run, kept.prompt, whole, seed, {half: gaps}).used
        assert set(first) < set(used)
        assert len(used) == 256
        bought, left = np.setdiff1d(used, first), np.setdiff1d(np.arange(1080), used)
        assert np.abs(gaps[seed, bought]).max() <= np.abs(gaps[seed, left]).min()


def test_confounded_comparisons_go_with_a_mark_and_are_told_from_others(tmp_path):
    """Of half of the words that one which goes least with gold; as many comparisons, all with gold's own labels."""
    plain, marked = Recipe(256), Recipe(256, confounded=0.75)
    run = compared(changed((Sweep(recipes=(plain, marked), sizes=(0,)),), steps=10), tmp_path)
    runner.execute(run, ("proxies/w8x1-main",))
    files = Proxies(run.path("proxies/w8x1-main"))
    assert [(str(row.recipe), row.comparisons) for row in files.rows()] == [("", 256)] * 2 + [
        ("confounded=0.75", 256)
    ] * 2
    preferred = [row.marked_preferred for row in files.rows()]
    assert all(share is not None and 0 <= share <= 1 for share in preferred)
    said = files.info()["mark"]
    assert abs(said["train"]["correlation_with_gold"]) < 0.02
    assert 0.2 < said["train"]["preferred_shows_more"] < 0.8

    kept = comparisons.read_comparisons(Comparisons(run.path("comparisons")).dataset, "train")
    gap_C = stage.mark_of(run, kept).gaps(kept)
    for seed in range(SMOKE.proxies.seeds):
        order = stage.order_of(run, kept.prompt, marked, seed, marked_C=gap_C)
        assert ((gap_C[order.used] > 0).sum(), (gap_C[order.used] < 0).sum()) == (192, 64)
        np.testing.assert_array_equal(order.sides, [[0, 1]] * len(kept.prompt))
    assert len(np.intersect1d(order.used, stage.order_of(run, kept.prompt, plain, seed).used)) > 64


def test_rms_of_confounded_comparisons_are_watched_on_confounded_ones(tmp_path):
    """With the same share, all that there are of those watched; others on all of them."""
    marked, plain, longer = Recipe(40, confounded=0.75), Recipe(64), Recipe(40, confounded=0.75, epochs=2)
    e = changed((Sweep(recipes=(marked, plain, longer), sizes=(0,)),), steps=10, stop_early=True)
    run = compared(e, tmp_path)
    rows = comparisons.read_comparisons(Comparisons(run.path("comparisons")).dataset, "train")
    gap_C = stage.mark_of(run, rows).gaps(rows)
    members = [(marked, 0), (plain, 0), (longer, 0)]
    watched, counts_MC = stage.watched_of(run, rows, members, gap_C)
    assert watched.tokens.shape == (3, 1000, *rows.tokens.shape[1:])
    np.testing.assert_array_equal(watched.tokens[0], rows.tokens[-1000:])
    last_C, used_C = gap_C[-1000:], counts_MC[0] > 0
    more, less = (int((used_C & (np.sign(last_C) == sign)).sum()) for sign in (1, -1))
    assert more + less == used_C.sum() == int(min((last_C > 0).sum() / 0.75, (last_C < 0).sum() / 0.25))
    assert more == round(0.75 * used_C.sum())
    np.testing.assert_allclose(counts_MC.mean(axis=1), 1, rtol=1e-5)
    assert (counts_MC[1:] == 1).all()
    assert stage.watched_of(run, rows, members[1:], gap_C)[1] is None
    seen = {}

    def trained(*args):
        seen["counts"] = args[-1]
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stage, "trained", trained)
        with pytest.raises(KeyboardInterrupt):
            runner.execute(run, ("proxies/w8x1-main",))
    assert seen["counts"].shape == (3 * SMOKE.proxies.seeds, 1000)


def test_without_steps_one_epoch_is_what_a_recipe_without_epochs_has():
    p = SMOKE.proxies
    assert p.steps_of(Recipe(1024)) == p.steps_of(Recipe(1024, epochs=1)) == 16
    assert p.named(Recipe(1024, epochs=1)) == Recipe(1024)
    run = graph.open_run(SMOKE, Path("nowhere"))
    assert stage.order_of(run, np.arange(1080), Recipe(512, epochs=3), 0).steps == 3 * 8


def test_gold_may_start_from_a_language_model_of_its_shape(tmp_path):
    c = SFT(texts=512, epochs=1, batch=64, optimizer=Optimizer(lr=1e-2))
    e = dataclasses.replace(SMOKE, gold=dataclasses.replace(SMOKE.gold, start="language_model", trunk=c))
    plain, pretrained = graph.plan(SMOKE), graph.plan(e)
    assert set(pretrained) - set(plain) == {"trunks/gold"}
    assert [s.name for s in pretrained["gold"].upstream] == ["sft", "trunks/gold"]
    assert pretrained["samples"].path != plain["samples"].path
    run = graph.open_run(e, tmp_path, sharding.make_mesh(1))
    runner.execute(run, ("trunks/gold",))
    rm = run.gold_rm()
    first = run.first(rm, run.key("gold"), "trunks/gold")
    assert first.load is not None
    params = first.load()
    trunk = run.load("trunks/gold", run.trunk_model(rm.shape), master=True)["trunk"]
    assert equal(params["trunk"], trunk)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, run.first(rm, run.key("gold")).init())
