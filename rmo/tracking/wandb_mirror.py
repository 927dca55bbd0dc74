"""The wandb mirror: every stage instance is one wandb run. The files stay the truth; nothing is only in wandb.

A run's group is the experiment and its run directory, its job type the kind of stage, its name that of the instance.
Its id follows from the run directory and the stage's own digest, so that a stage that was stopped continues its run,
on whatever host. wandb's step is the stage's own; rows that a run has already are not sent again.

Numbers are called `<kind>/<metric>`; where a stage has members, that is their mean, and `<kind>/<metric>/<i>` is
member i. A stage of a method ends with its curves, as in curves.csv, a row per point of a member:
`<kind>/curve/sqrt_kl`, `<kind>/curve/kl` and `<kind>/curve/step_or_n`, which all members share, and
`<kind>/curve/gold/<i>` and `<kind>/curve/proxy/<i>`.
"""

import contextlib
import math
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rmo import config
from rmo.runtime import hosts
from rmo.runtime.files import Json, Row, create, remote

if TYPE_CHECKING:
    import wandb

PATIENCE = {"init_timeout": 30.0, "finish_timeout": 60.0, "finish_timeout_raises": True}  # seconds


@contextlib.contextmanager
def careful() -> Iterator[None]:
    """Where wandb fails, one line says so, the stage goes on without it, and later ones are mirrored into files; where
    it fails again, or is not there, the mirror ends."""
    try:
        yield
    except Exception as error:
        Wandb.run = None
        if Wandb.shared is None or Wandb.failed:
            Wandb.shared = None
            then = "the run goes on without it"
        else:
            Wandb.shared |= {"mode": "offline", "resume": None}
            Wandb.failed = True
            Wandb.announced = False  # where it goes has changed
            then = "this stage goes on without it, later ones go to it offline"
        line = " ".join(str(error).split())[:200] or type(error).__name__
        print(f"\nrmo: wandb failed ({line}): {then}; the files have everything", flush=True)


class Wandb:
    """What is mirrored now; process 0's alone."""

    shared: Row | None = None  # what the wandb runs have in common; None: no mirror
    token = ""  # of the run directory
    run: "wandb.Run | None" = None  # the wandb run of the stage at work
    kind = ""
    announced = False
    failed = False  # once; twice ends the mirror

    @classmethod
    @careful()
    def start(cls, project: str, root: Path, e: config.Experiment, tags: Iterable[str]) -> None:
        """Mirror the stages that follow. Without an account, into files that can be sent later; nothing ever asks."""
        if not hosts.writer():
            return
        import wandb

        general = wandb.setup(wandb.Settings(silent=True)).settings
        mode = general.mode
        if mode == "disabled":
            return
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            mode = "offline"
        here = Path(general.wandb_dir) if remote(root) else root.absolute() / "wandb"
        os.environ.setdefault("WANDB_DATA_DIR", str(here))  # or copies of artifacts would go to the home directory
        create(root / "wandb" / "id", secrets.token_hex(4))
        cls.token = (root / "wandb" / "id").read_text()
        cls.shared = {
            "project": project,
            "group": f"{e.name}-{cls.token}",
            "tags": list(dict.fromkeys(tags)),
            "config": config.to_json(e),
            "dir": str(here.parent),
            "mode": mode,
            "resume": "allow" if mode == "online" else None,
            "reinit": "create_new",
            "settings": wandb.Settings(silent=True, **PATIENCE),
        }

    @classmethod
    @contextlib.contextmanager
    def stage(cls, name: str, path: str) -> Iterator[None]:
        """Begin, or continue, the wandb run of a stage instance; it ends with the block."""
        cls.begin(name, path)
        try:
            yield
        except BaseException:
            cls.end(1)
            raise
        cls.end(0)

    @classmethod
    @careful()
    def begin(cls, name: str, path: str) -> None:
        if cls.shared is None:
            return
        import wandb

        cls.kind = name.split("/")[0]
        run_id, here = config.digest(cls.token, path), Path(cls.shared["dir"], "wandb")
        for earlier in here.glob(f"offline-run-*-{run_id}*"):
            shutil.rmtree(earlier)  # its rows are in the stage's files, and come again
        cls.run = wandb.init(id=run_id, name=name, job_type=cls.kind, notes=path, **cls.shared)
        if not cls.announced:
            where = f"offline, to send: wandb sync {here}" if cls.run.offline else cls.run.project_url
            print(f"wandb: {where} (group {cls.shared['group']})", flush=True)
            cls.announced = True

    @classmethod
    @careful()
    def end(cls, code: int) -> None:
        if cls.run is not None:
            run, cls.run = cls.run, None
            run.finish(exit_code=code)

    @classmethod
    @careful()
    def log(cls, step: int, metrics: Row, speed: Row) -> None:
        """A row of metrics and one of speed, unless the run has them: after a stop some come again."""
        if cls.run is None or step < cls.run.starting_step:
            return
        if "kl" in metrics:  # curves are drawn against its root
            metrics = metrics | {"sqrt_kl": np.sqrt(np.maximum(metrics["kl"], 0)).tolist()}
        cls.run.log({**numbers(cls.kind, metrics), **numbers("speed", speed)}, step=step)

    @classmethod
    @careful()
    def show(cls, info: Row, tables: Mapping[str, Sequence[Row]], pages: dict[str, str]) -> None:
        """What a stage ended with: numbers for the summary, tables, HTML."""
        if cls.run is None:
            return
        import wandb

        found: Row = {}
        for name, rows in tables.items():
            columns: list[str | int] = list(rows[0]) if rows else []
            found[f"{cls.kind}/{name}"] = wandb.Table(columns, [list(row.values()) for row in rows])
        for name, page in pages.items():
            found[f"{cls.kind}/{name}"] = wandb.Html(page, inject=False, data_is_not_path=True)
        cls.run.summary.update(numbers(cls.kind, info))
        if found:
            cls.run.log(found)

    @classmethod
    @careful()
    def keep(cls, files: dict[str, Path]) -> None:
        """An artifact of these files, by their names in it."""
        if cls.run is None:
            return
        import wandb

        artifact = wandb.Artifact(f"{cls.kind}-{cls.run.id}", cls.kind)
        for name, file in files.items():
            artifact.add_file(str(file), name, skip_cache=True)
        cls.run.log_artifact(artifact)


def numbers(name: str, value: Json) -> dict[str, float]:
    """The numbers in a value, by name: `name` of a number, `name/<key>` of what a dict holds. Of a list `name` is the
    mean, of those that are not nan, and `name/<i>` each. What is not a number is left out."""
    if isinstance(value, dict):
        return joined(numbers(f"{name}/{key}", item) for key, item in value.items())
    if isinstance(value, list):
        each = joined(numbers(f"{name}/{i}", item) for i, item in enumerate(value))
        known = [x for x in each.values() if not math.isnan(x)]
        mean = float(np.mean(known)) if known else math.nan
        return {name: mean, **each} if each else {}
    return {name: value} if isinstance(value, int | float) else {}


def joined(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    return {name: value for part in parts for name, value in part.items()}
