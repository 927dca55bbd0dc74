"""TPU chips and GPUs, and the slices and machines that they come in."""

import os
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from rmo.runtime.files import RunError
from rmo.runtime.flops import PEAKS


@dataclass(frozen=True)
class Chip:
    """Published peaks of one chip (Google Cloud's pages of TPU versions, NVIDIA's data sheets; 2026)."""

    flops: float  # bf16 per second
    memory: float  # bytes
    bandwidth: float  # bytes of memory per second
    links: float  # bytes between chips per second
    devices: int = 1  # that JAX sees per chip
    share: float = 0.984  # of the memory that programs can have; the rest is the runtime's own

    @property
    def usable(self) -> float:
        """Bytes of memory of one device that programs can have."""
        return self.memory / self.devices * self.share


PREALLOCATED = 0.75  # of a GPU's memory JAX takes, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise
CHIPS = {
    "v4": Chip(PEAKS["TPU v4"], 32 * 2**30, 1228e9, 300e9, 2),
    "v5e": Chip(PEAKS["TPU v5 lite"], 16 * 2**30, 819e9, 200e9),
    "v5p": Chip(PEAKS["TPU v5"], 95 * 2**30, 2765e9, 600e9),
    "v6e": Chip(PEAKS["TPU v6 lite"], 32 * 2**30, 1640e9, 448e9),
    "a100": Chip(PEAKS["NVIDIA A100"], 80 * 2**30, 2039e9, 300e9, share=PREALLOCATED),
    "h100": Chip(PEAKS["NVIDIA H100"], 79.6 * 2**30, 3350e9, 450e9, share=PREALLOCATED),
    "h200": Chip(PEAKS["NVIDIA H200"], 140.4 * 2**30, 4800e9, 450e9, share=PREALLOCATED),
}  # fmt: skip
GPUS = ("a100", "h100", "h200")
# Slices that can be had, small ones first (Google Cloud's pages of TPU configurations, 2026).
SLICES = {
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    **dict.fromkeys(GPUS, ("1", "2", "4", "8")),  # of one machine
}


def kind_of(name: str) -> str:
    """The chip of a slice's name.

    Raises:
      RunError: there is no such chip.
    """
    kind = name.split(":")[0]
    if kind not in CHIPS:
        raise RunError(f"--topology {name}: known chips are {', '.join(CHIPS)}, e.g. v5e:8x8 or h100:1")
    return kind


def gpus(name: str) -> int:
    """How many GPUs such a name as h100:8 stands for; 0 where it is a slice of TPUs.

    Raises:
      RunError: there is no such chip, or no machine with so many of it.
    """
    kind = kind_of(name)
    if kind not in GPUS:
        return 0
    count = name.partition(":")[2] or "1"
    if count not in SLICES[kind]:
        raise RunError(f"--topology {name}: a machine has {', '.join(SLICES[kind])} of them, e.g. {kind}:8")
    return int(count)


def topology(name: str, model: int) -> tuple[Mesh, Chip]:
    """(mesh, chip) of a slice such as v5e:8x8 or of a machine such as h100:8, with `model` devices to every layer.

    GPUs cannot be compiled for without one: as many of this machine's CPU devices stand in for them.

    Raises:
      RunError: libtpu is not installed, or it knows no such slice, or `model` does not divide its devices.
    """
    count = gpus(name)
    devices = np.array(jax.devices("cpu")[:count]) if count else tpus(name)
    if devices.size < count:
        raise RunError(f"--topology {name}: set XLA_FLAGS=--xla_force_host_platform_device_count={count}")
    if devices.size % model:
        raise RunError(f"--model-parallel is {model}: it must divide the {devices.size} devices of {name}")
    mesh = Mesh(devices.reshape(-1, model), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
    return mesh, CHIPS[kind_of(name)]


def tpus(name: str) -> np.ndarray:
    """The devices of a slice, as libtpu describes it.

    Raises:
      RunError: libtpu is not installed, or it knows no such slice.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.experimental import topologies

    try:
        return np.array(topologies.get_topology_desc(name, platform="tpu").devices)
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        hint = "pip install libtpu (it runs without a TPU)"
        raise RunError(f"--topology {name}: {line}; if libtpu is missing: {hint}") from error
