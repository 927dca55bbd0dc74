"""What every stage needs of memory at the least, so that what cannot fit is refused before anything is made.

By the shapes that `rmo plan` counts with: parameters, Adam's two moments and gradients (which clipping needs all at
once) of what is trained, what rests beside it, and what the backward pass keeps of one batch at the least, the input
of every block. Nothing is compiled and temporaries are left out: what is refused can never fit, but what is not may
still be too large.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import psutil
from jax.sharding import Mesh

from rmo import config
from rmo.config.names import sizes_of
from rmo.experiment.memory_advice import memory_advice
from rmo.methods import method as methods
from rmo.methods.ppo.door import Plan
from rmo.planning.ppo_programs import climbers
from rmo.planning.program import Sketch, bytes_on_one_device, place, shapes_of, stacked
from rmo.runtime.files import RunError, Tree

GIB = 2**30
FLOAT = 4  # bytes of what is trained: parameters, moments and gradients are float32
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Need(NamedTuple):
    """Bytes that a kind of stage certainly holds at one time, and of what."""

    stage: str
    what: str
    bytes: int


known_shapes = functools.lru_cache(maxsize=256)(shapes_of)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Bytes of an experiment's parameters and batches, on one device of a mesh or, of a CPU's, on all together."""

    e: config.Experiment
    mesh: Mesh

    @functools.cached_property
    def sketch(self) -> Sketch:
        return Sketch(self.e, self.mesh)

    @functools.cached_property
    def shared(self) -> int:
        """Devices of this process that share one memory."""
        local = self.mesh.local_mesh.devices
        return local.size if local.flat[0].platform == "cpu" else 1

    def parameters(self, shape: config.Model, rm: bool, members: int = 0, stored: str = "float32") -> int:
        """Of `members` models, or of one; as they are trained, or as they are `stored` to be used."""
        if not (shape.vocab or self.known_vocab):  # only a tokenizer that has not been read knows it
            shape = dataclasses.replace(shape, vocab=1)
        alike = dataclasses.replace(shape.shape, pooling=shape.pooling)  # what changes no parameter is left out
        module = self.sketch.rm(alike) if rm else self.sketch.lm(alike)
        shapes = known_shapes(module, stored)  # pyright: ignore[reportArgumentType]  # modules can be hashed
        tree: Tree = place(stacked(shapes, members), self.mesh)
        return bytes_on_one_device(tree) * self.shared

    @functools.cached_property
    def known_vocab(self) -> bool:
        try:
            return bool(self.sketch.vocab)
        except RunError:
            return False

    def trained(
        self, shape: config.Model, rm: bool, rows: int, parts: int = 1, members: int = 0, copies: int = 4
    ) -> int:
        """A training of one model, or of `members` side by side: parameters, two moments and gradients (`copies`), and
        the input of every block for each of `rows` sequences of a member, `parts` of a batch one after the other."""
        kept = (
            math.ceil(rows / parts) * self.tokens(shape) * shape.width * shape.layers * jnp.dtype(shape.dtype).itemsize
        )
        spread = math.ceil(max(members, 1) * kept / self.mesh.size) * self.shared
        return copies * self.parameters(shape, rm, members) + spread

    def tokens(self, shape: config.Model) -> int:
        return self.sketch.read_tokens(shape) if shape.reads != "ids" and shape.length else self.sketch.tokens


def needs(e: config.Experiment, mesh: Mesh) -> Iterator[Need]:
    """What every kind of stage needs at the least, stage by stage."""
    s, world = Shapes(e, mesh), e.world
    for shape in e.policies:
        if e.sft.texts:
            yield training(s, "sft", "the policy", shape, e.sft.batch, e.sft.optimizer)
        drawing = s.parameters(shape, False, stored=shape.dtype)
        judging = s.parameters(e.gold.model, True, stored=e.gold.model.dtype)
        pool = e.bon.draws * (world.prompt + world.response) * 5  # ids and a mask
        yield Need("samples", "policy, gold and one prompt's draws", drawing + judging + pool)
    if e.gold.kind in ("annotator", "people"):
        rows = e.gold.batch * (2 if e.gold.kind == "people" else 1)
        yield Need("gold", "training gold", s.trained(e.gold.model, True, rows, e.gold.optimizer.accumulate))
    if e.gold.start == "language_model":
        yield training(s, "trunks", "gold's trunk", e.gold.model, e.gold.trunk.batch, e.gold.trunk.optimizer)
    for shape in filter(e.proxies.from_language_model, e.proxies.sizes):
        yield training(s, "trunks", "a proxy's trunk", shape, e.proxies.trunk.batch, e.proxies.trunk.optimizer)
    yield from of_proxies(s)
    yield from of_climbs(s)


def training(s: Shapes, stage: str, what: str, shape: config.Model, rows: int, optimizer: config.Optimizer) -> Need:
    """One language model's."""
    return Need(stage, f"training {what}", s.trained(shape, False, rows, optimizer.accumulate))


def of_proxies(s: Shapes) -> Iterator[Need]:
    """Every sweep's members side by side, and where one may stop early the best of each."""
    p = s.e.proxies
    for sweep in p.sweeps:
        members = len(sweep.recipes) * p.seeds
        copies = 5 if any(map(p.stops_early, sweep.recipes)) else 4
        for shape in (p.sizes[i] for i in sizes_of(s.e, sweep)):
            held = s.trained(shape, True, 2 * p.batch, p.optimizer.accumulate, members, copies)
            yield Need("proxies", f"training {members} proxies side by side", held)


def of_climbs(s: Shapes) -> Iterator[Need]:
    """PPO and what shares its loop: every member's policy and critic with their moments, the reward models, and the
    gradients of one."""
    e = s.e
    for name, policy, plan in climbs(e):
        shape, (proxy, members) = e.policies[policy], climbers(e, plan)
        critics = 0 if plan.estimator else s.parameters(shape, True, members)
        states = 3 * (s.parameters(shape, False, members) + critics)
        frozen = s.parameters(shape, False) + s.parameters(e.gold.model, True, stored=e.gold.model.dtype)
        rewards = s.parameters(proxy, True, members)
        rows = math.ceil(e.ppo.batch / e.ppo.minibatches)
        learning = s.trained(shape, False, rows, e.ppo.policy_optimizer.accumulate, copies=1)
        what = f"{members} policies{' and critics' if critics else ''} and their rewards"
        yield Need(name, what, states + frozen + rewards + learning)


def climbs(e: config.Experiment) -> Iterator[tuple[str, int, Plan]]:
    """(method, index of the policy, plan) of what shares PPO's loop, against single RMs and from the initial policy."""
    for kind in methods.every():
        for job in kind.jobs(e):
            if isinstance(job.details, Plan) and job.details.combined is None and not job.after:
                yield kind.name, job.policy, job.details


# What there is.


def machine(mesh: Mesh) -> int:
    """Bytes that a run can have: of an accelerator's device what its allocator may hold, of a CPU the machine's memory,
    or less where a control group limits it; 0 where nobody says."""
    device = mesh.local_mesh.devices.flat[0]
    if device.platform != "cpu":
        return int((device.memory_stats() or {}).get("bytes_limit", 0))
    limits = [psutil.virtual_memory().total]
    for name in map(Path, CGROUPS):
        try:
            text = name.read_text().strip()
        except OSError:
            continue
        limits += [int(text)] if text.isdigit() else []
    return min(limits)


def generous(s: Shapes) -> float:
    """More bytes than any stage needs, counted by hand: to trace every model takes seconds, which small experiments
    are spared. Infinite where sizes are a checkpoint's or a tokenizer's."""
    e = s.e
    shapes = (*e.policies, e.gold.model, *e.proxies.sizes)
    if any(shape.checkpoint for shape in shapes) or not s.known_vocab:
        return math.inf
    members = [len(sweep.recipes) * e.proxies.seeds for sweep in e.proxies.sweeps]
    members += [climbers(e, plan)[1] for _, _, plan in climbs(e)]
    batches = e.sft.batch, e.gold.trunk.batch, 2 * e.gold.batch, 2 * e.proxies.batch, e.proxies.trunk.batch, e.ppo.batch

    def of(shape: config.Model) -> int:
        ends = 2 * (shape.vocab or s.sketch.vocab) + max(shape.length, s.sketch.tokens) + 20
        inputs = max(batches) * s.tokens(shape) * shape.width * shape.layers
        return 20 * (shape.weights + ends * shape.width + 20 * shape.layers * shape.width) + inputs

    pool = e.bon.draws * (e.world.prompt + e.world.response)
    return s.shared * (max(members) * FLOAT * max(map(of, shapes)) + 8.0 * pool)


def too_large(e: config.Experiment, mesh: Mesh, has: int, stages: set[str]) -> str:
    """One line on the stage that needs most, of those kinds, where that is more than there is; else empty."""
    if 10 * generous(Shapes(e, mesh)) < has:
        return ""
    worst = max((need for need in needs(e, mesh) if need.stage in stages), key=lambda need: need.bytes, default=None)
    if worst is None or not has or worst.bytes <= has:
        return ""
    device = "this machine" if mesh.devices.flat[0].platform == "cpu" else "a device"
    return (
        f"{worst.stage} needs {amount(worst.bytes)} of memory at the least ({worst.what}) and {device} has "
        f"{amount(has)}: {memory_advice(worst.stage)}; --try-anyway starts it all the same"
    )


def amount(size: int) -> str:
    """Bytes for people."""
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.1f} MiB"
