"""`rmo plan`: what an experiment takes on a TPU slice or on GPUs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmo.cli.options import ExperimentOptions, experiment_options


@dataclass(frozen=True)
class PlanOptions(ExperimentOptions):
    """Compile an experiment's programs for a TPU slice, here: memory per device, collectives, time at the roofline. Of
    GPUs the same, but by XLA's CPU compiler, whose temporaries are an estimate."""

    topology: str = "v5e:8x8"
    """Chip and shape of the slice: v4:4x4x2, v5e:8x8, v5p:2x2x4, v6e:4x4, ...; or GPUs of one machine: a100:1, h100:8,
    h200:4."""
    suggest: bool = False
    """Find the smallest slice of this kind of chip, and the least splitting of layers, that fit instead."""
    model_parallel: int = 1
    """Devices that every layer is split over."""
    only: tuple[str, ...] = ()
    """Only programs with one of these in their names, e.g. ppo or 1.2B."""
    out: Path | None = None
    """Where the plan goes as JSON, after every program; the same command continues it (a suggestion is written once, at
    the end). Default: nowhere."""


def main(args: Sequence[str]) -> None:
    options = experiment_options(PlanOptions, "plan", args)
    os.environ["JAX_PLATFORMS"] = "cpu"  # the slice is looked up, not used
    # Stand-ins for the GPUs of one machine; JAX reads this once, before it looks for devices.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
    from rmo.planning import tpu_plan
    from rmo.runtime.files import write_json

    if options.suggest:
        found = tpu_plan.suggest(options.experiment, tpu_plan.kind_of(options.topology))
        if options.out:
            write_json(options.out, found)
    else:
        found = tpu_plan.plan(options.experiment, options.topology, options.model_parallel, options.only, options.out)
    print(tpu_plan.table(found))
