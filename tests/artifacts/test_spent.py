"""What a curve cost, by hand from made stages; what a stage does not say is not known."""

from rmo.analysis.curve_id import NO_RM, CurveId, Settings
from rmo.artifacts.run_files import RunFiles
from rmo.artifacts.spent import labels, share, spent, work
from rmo.artifacts.stages import Stage
from rmo.runtime.files import write_json


def test_work_is_device_seconds_without_compiling(tmp_path):
    stage = Stage(tmp_path)
    assert work(stage) is None
    stage.write_cost({"seconds": 50.0, "compile_seconds": 10.0, "devices": 4})
    assert work(stage) == 160
    assert share(stage, 8, 2) == 40
    assert share(None, 1, 1) is None
    stage.write_cost({"seconds": 50.0})
    assert work(stage) == 50
    stage.write_cost({"seconds": 5.0, "compile_seconds": 10.0})
    assert work(stage) == 0


def test_a_run_without_stages_of_methods_knows_nothing(tmp_path):
    run = RunFiles(tmp_path)
    write_json(tmp_path / "stages.json", [{"stage": "gold", "state": "done", "seconds": 1.0, "path": "gold-0"}])
    assert spent(run) == {}


def test_a_curve_pays_for_its_own_share(tmp_path, monkeypatch):
    """Two PPO runs against one of four RMs each; against two combined RMs the RMs count twice."""
    from rmo.artifacts import spent as module

    class Info(Stage):
        samples = "samples"
        record = type("R", (), {"tokens": None})()
        scores = "scores/x"
        after = ()

        def rows(self):
            return [0, 1, 2, 3]

    monkeypatch.setattr(module, "Scores", Info)
    monkeypatch.setattr(module, "Proxies", Info)
    seconds = {"samples": 100.0, "scores/x": 40.0, "proxies/x": 80.0, "ppo/x": 30.0}
    for name, value in seconds.items():
        Info(tmp_path / name).write_cost({"seconds": value})
        Info(tmp_path / name).write_info({})
    rows = [{"stage": name, "path": name, "state": "done", "seconds": 1.0} for name in seconds]
    run = RunFiles(tmp_path)
    write_json(tmp_path / "stages.json", rows)
    one = module.of_curve(run, Info(tmp_path / "ppo/x"), CurveId("ppo", 5), 2)  # type: ignore[arg-type]
    assert (one.optimising, one.training_rms, one.pool) == (15, 20, 100 + 10)
    assert one.seconds == 145
    two = module.of_curve(run, Info(tmp_path / "ppo/x"), CurveId("ppo", 5, rm_combined="m: mean of 2"), 2)  # type: ignore[arg-type]
    assert (two.training_rms, two.pool) == (40, 100 + 20)
    Info.record.tokens = 1  # responses of its own: no pool
    assert module.of_curve(run, Info(tmp_path / "ppo/x"), CurveId("ppo", 5), 2).pool == 0  # type: ignore[arg-type]
    (tmp_path / "proxies/x/cost.json").unlink()
    assert module.of_curve(run, Info(tmp_path / "ppo/x"), CurveId("ppo", 5), 2).seconds is None  # type: ignore[arg-type]
    # Policies that another stage optimised were paid for there; without an RM there is none to train.
    Info.after = ("scores/x",)  # type: ignore[assignment]
    monkeypatch.setattr(module, "Optimised", lambda path: type("O", (Info,), {"ids": lambda self: [0, 1]})(path))
    assert module.of_curve(run, Info(tmp_path / "ppo/x"), CurveId("ppo", 5), 2).optimising == 15 + 20  # type: ignore[arg-type]
    assert module.of_curve(run, Info(tmp_path / "ppo/x"), CurveId("direct", rm_combined=NO_RM), 2).training_rms == 0  # type: ignore[arg-type]


def test_labels_of_rounds_and_of_several_rms_add_up():
    assert labels(CurveId("ppo", 5)) is None
    assert labels(CurveId("ppo", 5, 4000)) == 4000
    assert labels(CurveId("bon", 5, 4000, rm_combined="m: mean of 3")) == 12_000
    assert labels(CurveId("rounds", 5, 4000, settings=Settings(rounds=4))) == 16_000
    assert labels(CurveId("rounds", 5, 4000, settings=Settings(rounds=4, comparisons=1000))) == 7000
