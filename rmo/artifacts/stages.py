"""What each stage leaves in its directory: one class per kind of stage, which writes it and reads it.

Nobody else knows a file's name. `Stage` holds what all kinds have; arrays and records come back typed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmo.analysis.curve_id import CurveId, Settings
from rmo.methods.bench import Arm, Record, RewardRow
from rmo.methods.wording import Wording
from rmo.rewards.calibration import Calibration
from rmo.runtime import checksums, hosts
from rmo.runtime.files import Row, naming, read_json, read_npz, write_json, write_npz, write_text


@dataclass(frozen=True)
class Stage:
    """What every stage leaves: whether it is done, what it cost, its logs, and `info.json`, what came out in short."""

    directory: Path

    @property
    def done(self) -> bool:
        return self.done_file.exists()

    def mark_done(self, path: str) -> None:
        """Written last: a directory without it is continued, one with it is skipped. It lists what is there."""
        if hosts.writer():
            write_text(self.done_file, checksums.sealed(self.directory, path))

    def mark_begun(self, code: str) -> None:
        """By what code, unless it was begun before: parts that are there stay its own."""
        if not (self.directory / "begun.json").exists():
            write_json(self.directory / "begun.json", {"code": code})

    def begun_by(self) -> str | None:
        """The hash of the code that began it; None where it was not begun."""
        path = self.directory / "begun.json"
        return read_json(path)["code"] if path.exists() else None

    def mark_undone(self) -> None:
        self.done_file.unlink(missing_ok=True)

    @property
    def done_file(self) -> Path:
        return self.directory / checksums.DONE

    def write_cost(self, cost: Row) -> None:
        """Seconds, versions, code and devices of the call that finished it."""
        write_json(self.directory / "cost.json", cost)

    def cost(self) -> Row:
        return read_json(self.directory / "cost.json")

    def made_by(self) -> str | None:
        """The hash of the code that finished it, empty where that was not recorded; None: it never was finished."""
        return self.cost().get("code", "") if checksums.present(self.directory / "cost.json") else None

    def has_info(self) -> bool:
        return checksums.present(self.directory / "info.json")

    def write_info(self, info: Row) -> None:
        write_json(self.directory / "info.json", info)

    def info(self) -> Row:
        return read_json(self.directory / "info.json")

    def speed(self) -> list[Row]:
        """Rows of its log of speed, as far as it is."""
        return jsonl(self.directory / "speed.jsonl")

    def metrics(self) -> list[Row]:
        """Rows of its log of metrics, as far as it is."""
        return jsonl(self.directory / "metrics.jsonl")

    def written(self) -> list[Path]:
        """The files that say when it was worked on last, the best first."""
        names = ("speed.jsonl", "metrics.jsonl", "HOLDER")
        return [self.directory / name for name in names if (self.directory / name).exists()]


def jsonl(path: Path) -> list[Row]:
    """Rows of a JSON-lines file that may be growing, and whose last line may be half written."""
    out = []
    with naming(path):
        text = checksums.content(path).decode(errors="replace") if checksums.present(path) else ""
    for line in text.splitlines():
        try:
            out.append(json.loads(line))
        except ValueError:
            break
    return out


class PolicyInfo(NamedTuple):
    """What is known of an initial policy."""

    params: dict[str, int]  # parameters: total and non_embedding
    steps: int
    held_out_loss: float | None


class Policy(Stage):
    """`sft`: an initial policy, its parameters (checkpoints/saved_model) and its tokenizer."""

    @property
    def tokenizer(self) -> Path:
        return self.directory / "tokenizer"

    def write(self, info: PolicyInfo) -> None:
        self.write_info(info._asdict())

    def read(self) -> PolicyInfo:
        found = self.info()
        return PolicyInfo(*(found[name] for name in PolicyInfo._fields))


class Prompts(NamedTuple):
    """Q prompts of a pool, left-padded."""

    tokens: np.ndarray  # i32[Q, P]
    mask: np.ndarray  # bool[Q, P]


class Draws(NamedTuple):
    """N responses to one prompt."""

    tokens: np.ndarray  # i32[N, R]
    mask: np.ndarray  # bool[N, R]
    logps: np.ndarray  # f32[N], of the whole response
    gold: np.ndarray  # f32[N], raw


class Samples(Stage):
    """`samples`: the pool of one policy's draws on the held-out prompts, with gold's raw scores and calibration."""

    def write_prompts(self, prompts: Prompts) -> None:
        write_npz(self.directory / "prompts.npz", **prompts._asdict())

    @cached_property
    def prompts(self) -> Prompts:
        return Prompts(**read_npz(self.directory / "prompts.npz"))

    @property
    def parts(self) -> Path:
        """One file per prompt, as they are made."""
        return self.directory / "draws"

    def draws(self, q: int) -> Draws:
        found = read_npz(self.parts / f"{q:05d}.npz")
        return Draws(found["tokens"].astype(np.int32), found["mask"], found["logps"], found["gold"])

    def write_calibration(self, calibration: Calibration) -> None:
        write_json(self.directory / "calibration.json", calibration._asdict())

    def calibration(self) -> Calibration:
        """Gold's: mean 0 and standard deviation 1 on this pool."""
        return Calibration(**read_json(self.directory / "calibration.json"))


class Comparisons(Stage):
    """`comparisons`: labelled pairs as a dataset (worlds/comparisons), and what is known of them."""

    @property
    def dataset(self) -> Path:
        return self.directory / "dataset"


class ProxyRow(NamedTuple):
    """One proxy RM of a `proxies` stage."""

    comparisons: int
    recipe: Settings
    recipe_index: int
    seed: int
    steps: int
    validation_loss: float
    validation_accuracy: float
    # Share of the held-out pairs in which it prefers the response that shows more of the mark (worlds/confounding.py);
    # None where no recipe of its sweep is confounded.
    marked_preferred: float | None = None


class Validation(NamedTuple):
    """Raw scores of M proxies on the held-out comparisons, the preferred response first."""

    scores: np.ndarray  # f32[M, C, 2]
    gold: np.ndarray  # f32[C, 2], raw
    prompt: np.ndarray  # i32[C]


class Proxies(Stage):
    """`proxies/...`: reward models of one shape, every recipe with every seed."""

    def write(self, params: dict[str, int], rows: Sequence[ProxyRow], more: Row) -> None:
        members = [{**row._asdict(), "recipe": str(row.recipe)} for row in rows]
        self.write_info({"params": params, "members": members, **more})

    def rows(self) -> list[ProxyRow]:
        members = self.info()["members"]
        return [ProxyRow(**{**row, "recipe": Settings.parse(row["recipe"])}) for row in members]

    def params(self) -> dict[str, int]:
        return self.info()["params"]

    def write_validation(self, validation: Validation) -> None:
        write_npz(self.directory / "validation.npz", **validation._asdict())

    def validation(self) -> Validation:
        return Validation(**read_npz(self.directory / "validation.npz"))


class Calibrated(NamedTuple):
    """How one reward is calibrated, and how wrong its probabilities are on the held-out comparisons."""

    calibration: Calibration
    error: float


class Scores(Stage):
    """`scores/...`: one policy's pool scored by every proxy of a stage and by what is combined of them.

    Rewards come in order: single RMs, then combined ones.
    """

    def write(
        self, samples: str, sweep: str, params: dict[str, int], policy: dict[str, int], rows: Sequence[RewardRow]
    ) -> None:
        """`samples`: the stage that made the pool; `sweep`: the name of the proxies' sweep; `params` and `policy`:
        parameters of one RM and of the policy, total and non_embedding."""
        rewards = [{**row._asdict(), "recipe": str(row.recipe)} for row in rows]
        where = {"samples": samples, "sweep": sweep}
        self.write_info({**where, "params": params, "policy": policy, "rewards": rewards})

    @property
    def sweep(self) -> str:
        """The name of the sweep that its RMs are of."""
        return self.info()["sweep"]

    @property
    def samples(self) -> str:
        """The name of the stage that made the pool."""
        return self.info()["samples"]

    def rows(self) -> list[RewardRow]:
        return [RewardRow(**{**row, "recipe": Settings.parse(row["recipe"])}) for row in self.info()["rewards"]]

    def params(self) -> int:
        """Parameters of one RM without embeddings."""
        return self.info()["params"]["non_embedding"]

    def policy_params(self) -> int:
        return self.info()["policy"]["non_embedding"]

    def id_of(self, method: str, arm: Arm) -> CurveId:
        """The identity of the curve that a method makes of one of these rewards."""
        row = self.rows()[arm.reward]
        return CurveId(
            method=method,
            rm_params=self.params(),
            rm_comparisons=row.comparisons,
            rm_recipe=row.recipe,
            rm_combined=row.combined,
            policy_params=self.policy_params(),
            settings=arm.settings,
            seed=row.seed if arm.seed is None else arm.seed,
        )

    @property
    def parts(self) -> Path:
        """Raw scores f32[M, N] of the RMs, one file per prompt, as they are made."""
        return self.directory / "raw"

    def raw(self, q: int) -> np.ndarray:
        """f32[M, N]; M counts the RMs that were run, weight-averaged ones last."""
        return read_npz(self.parts / f"{q:05d}.npz")["raw"]

    def write_calibrations(self, found: Sequence[Calibrated]) -> None:
        rows = [{**c.calibration._asdict(), "calibration_error": c.error} for c in found]
        write_json(self.directory / "calibration.json", rows)

    def calibrations(self) -> list[Calibrated]:
        rows = read_json(self.directory / "calibration.json")
        return [Calibrated(Calibration(row["shift"], row["scale"]), row["calibration_error"]) for row in rows]

    def write_start(self, proxy_MQ: np.ndarray, gold_Q: np.ndarray) -> None:
        write_npz(self.directory / "start.npz", proxy=proxy_MQ, gold=gold_Q)

    @cached_property
    def start(self) -> tuple[np.ndarray, np.ndarray]:
        """(proxy f64[M, Q], gold f64[Q]): means of the initial policy, prompt by prompt, where curves begin."""
        found = read_npz(self.directory / "start.npz")
        return found["proxy"], found["gold"]


# Names in record.npz: fields of a Record, and prefixes of what stands in its dictionaries.
ARRAYS = ("step_or_n", "kl", "proxy", "gold", "real", "kl_given", "annotator", "draw", "tokens", "mask")
JUDGED_AS, DIAGNOSTIC, WORDING = "judged_", "diagnostic_", "wording_"


class Optimised(Stage):
    """A method's stage: who its members are, and the record of what it measured."""

    def write_arms(self, scores: str, arms: Sequence[Arm], ids: Sequence[CurveId], after: Sequence[str] = ()) -> None:
        """Before the work starts, so that `rmo watch` knows the members. `scores` is the stage of the rewards, `after`
        are those whose policies it takes."""
        rows = [{"reward": a.reward, "arm_seed": a.seed, **id.cells()} for a, id in zip(arms, ids, strict=True)]
        self.write_info({"scores": scores, "arms": rows} | ({"after": list(after)} if after else {}))

    def arms(self) -> list[Arm]:
        rows = self.info()["arms"]
        return [Arm(row["reward"], Settings.parse(row["settings"]), row.get("arm_seed")) for row in rows]

    def ids(self) -> list[CurveId]:
        """The identities of its members' curves."""
        return [CurveId.of_cells(row) for row in self.info()["arms"]]

    @property
    def scores(self) -> str:
        """The name of the `scores` stage whose rewards it optimised against."""
        return self.info()["scores"]

    @property
    def after(self) -> list[str]:
        """The names of stages whose policies it took."""
        return self.info().get("after", [])

    def write(self, record: Record) -> None:
        arrays = {name: getattr(record, name) for name in ARRAYS if getattr(record, name) is not None}
        arrays |= {f"{JUDGED_AS}{name}": x for name, x in record.judged.items()}
        arrays |= {f"{DIAGNOSTIC}{name}": x for name, x in record.diagnostics.items()}
        wording = record.wording._asdict() if record.wording else {}
        arrays |= {f"{WORDING}{name}": x.astype(np.float32) for name, x in wording.items()}
        write_npz(self.directory / "record.npz", **arrays)

    @cached_property
    def record(self) -> Record:
        found = read_npz(self.directory / "record.npz")

        def named(prefix: str) -> dict[str, np.ndarray]:
            return {name.removeprefix(prefix): x for name, x in found.items() if name.startswith(prefix)}

        arrays = {name: found[name] for name in ARRAYS if name in found}
        wording = Wording(**words) if (words := named(WORDING)) else None
        return Record(self.arms(), **arrays, judged=named(JUDGED_AS), diagnostics=named(DIAGNOSTIC), wording=wording)
