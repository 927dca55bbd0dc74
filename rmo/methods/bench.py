"""What a method is given and what it gives back: the bench it works at, the pool of samples, the record it makes.

`Bench` is a protocol, so that a method knows no files: a run provides one (rmo/experiment/bench.py), a notebook or a
test may provide another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from rmo.analysis.curve_id import Settings
from rmo.methods.wording import PoolTexts, Wording

if TYPE_CHECKING:
    import jax

    from rmo.config import Experiment
    from rmo.models.reader import Reader
    from rmo.models.transformer import LanguageModel, Params, RewardModel
    from rmo.rewards.calibration import Calibration
    from rmo.rewards.reward import Reward, RewardParams
    from rmo.training.tracker import Checkpoints, Tracker


class Pool(NamedTuple):
    """N draws of the initial policy for each of Q held-out prompts, scored by gold and by every reward of the job."""

    proxy_MQN: Sequence[np.ndarray]  # f64[Q, N] of each of M rewards, calibrated
    gold_QN: np.ndarray  # f64, calibrated
    logps_QN: np.ndarray  # f32, log-probability of the whole response
    logits: float  # of a preference, that one unit of these scores is
    annotator_QN: np.ndarray | None = None  # f64, where the world has one; mean 0, variance 1 on the main policy's pool
    texts: PoolTexts | None = None  # the draws themselves, where they are at hand
    # f64[Q, N], how far the RMs of a combined reward are apart (`combination.spread`); None of a single RM.
    spread_MQN: Sequence[np.ndarray | None] | None = None


class Pairs(NamedTuple):
    """C pairs of responses, each behind the prompt that both answer, the one that the labels prefer first."""

    tokens: np.ndarray  # i32[C, 2, T], prompt (left-padded, as `read_prompts` has them) and response
    mask: np.ndarray  # bool[C, 2, T]
    gold: np.ndarray  # f[C, 2], calibrated


class Comparisons(NamedTuple):
    """The run's comparisons, and which of them rows of `Bench.rewards` learn from, with which labels."""

    train: Pairs
    held_out: Pairs  # to other prompts
    used: Mapping[int, np.ndarray]  # by row, i64[its comparisons], places in `train`
    sides: Mapping[int, np.ndarray]  # by row, i64[C, 2], where in `train` what it takes as preferred and as other is


class Judge(NamedTuple):
    """The gold RM, as it is read along the way."""

    rm: "RewardModel"
    params: "Params"
    calibration: "Calibration"
    reader: "Reader"
    logits: float  # of a preference, that one standard deviation of gold is


class RewardRow(NamedTuple):
    """One reward of a `scores` stage: a single RM, or several combined."""

    name: str  # of its random streams: its place among the proxies or, combined, the combination's name
    comparisons: int | None  # None of gold, which is its own proxy
    recipe: Settings  # how it was trained, where not as in the paper
    recipe_index: int  # which of the sweep's recipes
    seed: int | None  # None where several seeds are combined
    combined: str = ""  # how, and of how many; of gold `curve_id.GOLD`


OWN = "own"  # labels, in `Bench.retrained`


class Bench(Protocol):
    """What a method may ask for. Keys and generators follow from the experiment's seed and the purpose's name."""

    @property
    def experiment(self) -> "Experiment": ...
    @property
    def rewards(self) -> Sequence[RewardRow]: ...
    @property
    def mesh(self) -> "jax.sharding.Mesh": ...
    @property
    def length(self) -> int:
        """R, most tokens of a response."""
        ...

    @property
    def eos(self) -> int: ...
    @property
    def checkpoints(self) -> "Checkpoints":
        """Of this stage."""
        ...

    def checkpoints_of(self, part: str) -> "Checkpoints":
        """Of one part of this stage, where it is made of several."""
        ...

    def tracker(self, total: int, unit: str) -> "Tracker": ...
    def rng(self, purpose: str) -> np.random.Generator: ...
    def key(self, purpose: str) -> "jax.Array": ...
    def pool(self) -> Pool: ...
    def policy(self) -> tuple["LanguageModel", "Params"]: ...
    def critic(self) -> "RewardModel": ...
    def gold(self) -> Judge: ...

    def reward(self, chosen: Sequence[int]) -> tuple["Reward", "RewardParams"]:
        """The rewards at these places, which must be of one kind, with a leading axis of as many."""
        ...

    def label(self, name: str, chosen: Sequence[int], policies: "Params", size: int) -> None:
        """Draw pairs from these policies, which were optimised against the rewards at these places, have them labelled,
        `size` to train on and others to be judged on, and keep them under a name; once, also where a run goes on
        after it was killed."""
        ...

    def importance(
        self, name: str, chosen: Sequence[int], policies: "Params", clip: float, flatten: float
    ) -> Sequence["Importance"]:
        """How much the labels that these rewards learned from at first count (`training.importance`) where RMs are to
        judge what these policies write, one of which was optimised against each; made once under a name."""
        ...

    def retrained(
        self, name: str, chosen: Sequence[int], labels: Sequence[str], weights: Sequence["Importance"] | None = None
    ) -> "RewardParams":
        """RMs like those at these places, for the same `Reward`: trained anew, each on its own labels of all these
        names, and calibrated; made once under a name. `OWN` are the labels that a reward learned from at first; of
        these alone there may be `weights`."""
        ...

    @property
    def vocab(self) -> int: ...
    @property
    def word_ids(self) -> np.ndarray:
        """i64[W], the ids that stand for text: none that pads, begins or ends one."""
        ...

    def annotated(self, tokens_QDR: np.ndarray, mask_QDR: np.ndarray) -> np.ndarray | None:
        """The annotator's scores f64[Q, D] of responses to the held-out prompts, as in the pool; None without one."""
        ...

    def prompts(self, size: int, method: str = "") -> tuple[np.ndarray, np.ndarray]:
        """(tokens i32[size, P], mask) to optimise on, disjoint from those that are read: of this method, or the same as
        of another one."""
        ...

    def read_prompts(self) -> tuple[np.ndarray, np.ndarray]:
        """(tokens i32[Q, P], mask), the held-out prompts of the pool."""
        ...

    def comparisons(self, chosen: Sequence[int]) -> Comparisons:
        """What the rewards at these places learn from, for methods that learn from labels themselves."""
        ...

    def begin(self, members: Sequence["Arm"]) -> None:
        """Write down who the members are before the work starts, so that it can be watched."""
        ...

    def keep_policies(self, params: "Params", members: int) -> None:
        """Save the optimised policies, a leading axis of members."""
        ...

    def kept(self, stage: str) -> "Params":
        """The policies that a stage of `Job.after` saved, a leading axis of its members."""
        ...


class Importance(NamedTuple):
    """How much each of one reward's comparisons counts, of mean 1."""

    train: np.ndarray  # f32[C], of those that it is trained on
    held_out: np.ndarray  # f32[H], of those that it is judged on


class Arm(NamedTuple):
    """One of the curves of a stage."""

    reward: int  # its place among the bench's rewards
    settings: Settings = Settings()  # of the method, where not its default
    seed: int | None = None  # where it is not the reward's own


@dataclass(frozen=True)
class Record:
    """What a method measured: M members at up to K points, on Q held-out prompts. Scores are calibrated."""

    arms: Sequence[Arm]
    step_or_n: np.ndarray  # [M, K], what the method's axis counts: whole numbers, or coefficients as f64
    kl: np.ndarray  # f64[M, K] from the initial policy, nats
    proxy: np.ndarray  # f[M, K, Q], means per prompt
    gold: np.ndarray  # f[M, K, Q]
    real: np.ndarray | None = None  # bool[M, K], False where a member has fewer points; None: all are real
    kl_given: np.ndarray | None = None  # f64[M, K, Q], a tighter estimate where `kl` is a bound
    # How the proxy judges pairs of the optimised policy's own responses, f[M, K, Q] (metrics.agreement); of several
    # RMs also how far they are apart on single ones (`SPREAD`), NaN where there is one RM.
    judged: dict[str, np.ndarray] = field(default_factory=dict)
    diagnostics: dict[str, np.ndarray] = field(default_factory=dict)  # f[M, K] each
    annotator: np.ndarray | None = None  # f[M, K, Q], means of what gold learned from, where the world has it
    wording: Wording | None = None  # [M, K, ...], means over all responses to all prompts
    # One response per point and prompt: either a draw of the pool, or tokens of its own.
    draw: np.ndarray | None = None  # i[M, K, Q], which of the pool's draws
    tokens: np.ndarray | None = None  # i32[M, K, Q, R]
    mask: np.ndarray | None = None  # bool[M, K, Q, R]

    def points(self, m: int) -> np.ndarray:
        """Indices of member m's points, i64[K']."""
        return np.arange(self.kl.shape[1]) if self.real is None else np.flatnonzero(self.real[m])


JUDGED = ("accuracy", "confidence", "support")
SPREAD = "spread"
