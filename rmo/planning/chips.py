"""TPU chips and the slices that they come in."""

import os
from dataclasses import dataclass

import numpy as np
from jax.sharding import AxisType, Mesh

from rmo.runtime.files import RunError
from rmo.runtime.flops import PEAKS


@dataclass(frozen=True)
class Chip:
    """Published peaks of one chip (Google Cloud's pages of TPU versions, 2026)."""

    flops: float  # bf16 per second
    memory: float  # bytes
    bandwidth: float  # bytes of memory per second
    links: float  # bytes between chips per second
    devices: int = 1  # that JAX sees per chip

    @property
    def usable(self) -> float:
        """Bytes of memory of one device that programs can have."""
        return self.memory / self.devices * USABLE


USABLE = 0.984  # of a chip's memory; the rest is the runtime's own
CHIPS = {
    "v4": Chip(PEAKS["TPU v4"], 32 * 2**30, 1228e9, 300e9, 2),
    "v5e": Chip(PEAKS["TPU v5 lite"], 16 * 2**30, 819e9, 200e9),
    "v5p": Chip(PEAKS["TPU v5"], 95 * 2**30, 2765e9, 600e9),
    "v6e": Chip(PEAKS["TPU v6 lite"], 32 * 2**30, 1640e9, 448e9),
}  # fmt: skip
# Slices that can be had, small ones first (Google Cloud's pages of TPU configurations, 2026).
SLICES = {
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
}


def kind_of(name: str) -> str:
    """The chip of a slice's name.

    Raises:
      RunError: there is no such chip.
    """
    kind = name.split(":")[0]
    if kind not in CHIPS:
        raise RunError(f"--topology {name}: known chips are {', '.join(CHIPS)}, e.g. v5e:8x8")
    return kind


def topology(name: str, model: int) -> tuple[Mesh, Chip]:
    """(mesh, chip) of a slice such as v5e:8x8, with `model` devices to every layer.

    Raises:
      RunError: libtpu is not installed, or it knows no such slice, or `model` does not divide its devices.
    """
    kind = kind_of(name)
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    try:
        devices = np.array(topologies.get_topology_desc(name, platform="tpu").devices)
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        hint = "pip install libtpu (it runs without a TPU)"
        raise RunError(f"--topology {name}: {line}; if libtpu is missing: {hint}") from error
    if devices.size % model:
        raise RunError(f"--model-parallel is {model}: it must divide the {devices.size} devices of {name}")
    mesh = Mesh(devices.reshape(-1, model), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
    return mesh, CHIPS[kind]
