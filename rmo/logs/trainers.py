"""What trainers call their columns, and what each KL among them is.

Read in the trainers' sources, state of August 2026. To add a trainer, add it to `TRAINERS` (see this folder's README).
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

Unit = Literal["sequence", "token", "no", "unknown"]


class Kl(NamedTuple):
    """What a KL column holds."""

    unit: Unit  # the sum over a response, a mean per token, no KL from the start, or nobody knows
    why: str = ""  # what is wrong or dubious about it, as the end of a sentence that begins with the column's name
    estimator: str = ""  # k1, k2, k3 or what else is averaged, as far as the trainer's source says


class Trainer(NamedTuple):
    """A trainer's columns, each without `train/` before it; `*` stands for any text. Of several for one role the first
    in the log is taken."""

    marks: tuple[str, ...]  # columns that only this trainer has: any of them in a log names its trainer
    kl: dict[str, Kl]
    proxy: tuple[str, ...]
    length: tuple[str, ...] = ()  # mean length of a response in tokens
    gold: tuple[str, ...] = ()  # scores on held-out prompts, one of which may be what the user wants; never guessed
    step: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()  # reward functions whose weighted sum is the proxy
    no_kl: str = (
        ""  # why there may be no KL in the log, and what to set: the end of a sentence after the trainer's name
    )


K1 = "k1, log p - log p_initial"
K2 = "k2, half its square"
K3 = "k3, exp(-l) - 1 + l of l = log p - log p_initial"
SUM = Kl("sequence")
TOKEN = Kl("token")
UNKNOWN = Kl("unknown")
OLD = Kl("no", "is between the policy before and after an update, not from the initial policy")
ENGINE = Kl("no", "is between the sampler's and the trainer's copy of one policy, not from the initial policy")
ROOT = Kl("no", "is the square root of a mean of exp(l) - 1 - l over prompt and response, far above the KL")
COEFFICIENT = Kl("no", "is the penalty's coefficient or target, not a KL")
WEIGHTED = Kl("no", "is the KL times the penalty's coefficient, as it stands in the loss or the reward")
LARGEST = Kl("no", "is that of each response's largest token, not of the response")
RATIO = Kl("no", "is a KL divided by the entropy, not a KL")
CUT = "is cut off at 10 for every token: too low where the policy is far away"
OVERSTATES = "is k2, l²/2: it overstates where KL is large"
TRL_NO_KL = "computes no KL while beta is 0, its default: set beta (1e-3 changes little) and it logs kl"
_TRL = {"kl": Kl("token", "", "k3 in GRPO, k1 in RLOO")}
_REWARDS = ("rewards/*/mean", "rewards/*")
TRAINERS = {
    "open-instruct before 2026": Trainer(
        marks=("objective/kl_avg", "objective/kl4_avg"),
        kl={
            "objective/kl_avg": Kl("token", "", K1),
            "objective/kl3_avg": Kl("token", "", K3),
            "objective/kl2_avg": Kl("token", OVERSTATES, K2),
            "objective/kl4_avg": Kl("token", "", "k1 weighted by the policies' ratio"),
            "loss/kl_avg": WEIGHTED,
        },
        proxy=("objective/scores", "scores"),
        length=("val/sequence_lengths",),
        gold=("eval/scores", "eval/objective/verifiable_reward"),
        step=("training_step", "episode"),
    ),
    "open-instruct": Trainer(
        marks=("objective/kl0_avg", "objective/verifiable_reward", "debug/vllm_local_reverse_kl"),
        kl={
            "objective/kl2_avg": Kl("token", "", K3),
            "objective/kl0_avg": Kl("token", "", K1),
            "objective/kl3_avg": Kl("token", "", "k1 weighted by the policies' ratio"),
            "objective/kl1_avg": Kl("token", OVERSTATES, K2),
            "loss/kl_avg": WEIGHTED,
            "debug/vllm_local_reverse_kl": ENGINE,
        },
        proxy=("scores", "objective/scores"),
        length=("val/sequence_lengths",),
        gold=("eval/scores", "eval/pass_at_1", "eval/objective/verifiable_reward"),
        step=("training_step", "episode"),
        no_kl="logs objective/kl2_avg only with a reference policy: set load_ref_policy (beta may stay 0)",
    ),
    "TRL's PPO": Trainer(
        marks=("objective/rlhf_reward", "objective/scores", "objective/non_score_reward"),
        kl={
            "objective/kl": Kl(
                "sequence", "is the policies' KL if you sampled at temperature 1 (TRL's default is 0.7)", K1
            ),
            "policy/approxkl_avg": OLD,
        },
        proxy=("objective/scores",),
        length=("val/sequence_lengths",),
        step=("step", "global_step"),
        no_kl="logs objective/kl at every update: log it to the file too",
    ),
    "ms-swift": Trainer(
        marks=("global_step/max_steps",),
        kl={**_TRL, "k3_kl": Kl("no", ENGINE.why), "teacher_kl": Kl("no", "is from a teacher, not the initial policy")},
        proxy=("reward",),
        length=("completions/mean_length",),
        gold=("eval/reward", "eval/rewards/*/mean"),
        step=("step", "global_step/max_steps", "iteration"),
        parts=_REWARDS,
        no_kl="computes no KL while beta is 0: set beta (1e-3 changes little) and logging.jsonl has kl",
    ),
    "TRL's GRPO or RLOO": Trainer(
        marks=("completions/mean_length", "completion_length", "frac_reward_zero_std"),
        kl=_TRL,
        proxy=("reward",),
        length=("completions/mean_length", "completion_length"),
        gold=("eval/reward", "eval/rewards/*/mean"),
        parts=_REWARDS,
        no_kl=TRL_NO_KL,
    ),
    "TRL's PPO before 0.12": Trainer(
        marks=("ppo/mean_non_score_reward", "env/reward_mean"),
        kl={"objective/kl": Kl("sequence", "", K1), "ppo/policy/approxkl": OLD, "ppo/policy/policykl": OLD},
        proxy=("env/reward_mean", "ppo/mean_scores"),
        length=("tokens/responses_len_mean",),
    ),
    "OpenRLHF": Trainer(
        marks=("total_length", "logprobs_diff", "vllm_kl", "rollout/response_length_mean"),
        kl={
            "kl": Kl("token", f"{CUT}; logprobs_diff is not", "k1, or as algo.kl.estimator says"),
            "logprobs_diff": Kl("token", "", K1),
            "ppo_kl": OLD,
            "vllm_kl": ENGINE,
        },
        proxy=("reward", "rollout/reward_mean"),
        length=("response_length", "rollout/response_length_mean"),
        gold=("eval/eval_*_pass1", "eval/*_pass1", "eval_*_pass1"),
        no_kl="has no initial policy while --algo.kl.init_coef is 0: set it (1e-3 changes little)",
    ),
    "verl": Trainer(
        marks=("critic/score/mean", "actor/pg_loss", "critic/rewards/mean"),
        kl={
            "actor/reward_kl_penalty": Kl("token", "", "k1, or as algorithm.kl_penalty says"),
            "critic/kl": Kl("token", "", "k1, or as algorithm.kl_penalty says"),
            "actor/kl_loss": Kl("token", f"{CUT}, if kl_loss_type is low_var_kl", "k3, or as kl_loss_type says"),
            "actor/ppo_kl": OLD,
            "rollout_corr/*": ENGINE,
            "actor/reward_kl_penalty_coeff": COEFFICIENT,
            "actor/kl_coef": COEFFICIENT,
            "critic/kl_coeff": COEFFICIENT,
        },
        proxy=("critic/score/mean",),
        length=("response_length/mean",),
        gold=("val-core/*/reward/mean@*", "val-core/*/acc/mean@*", "val/test_score/*", "val-aux/*/mean@*"),
        step=("step", "training/global_step"),
        no_kl="computes none without a reference: set actor.use_kl_loss=True (it logs actor/kl_loss) or "
        "algorithm.use_kl_in_reward=True (actor/reward_kl_penalty)",
    ),
    "trlx": Trainer(
        marks=("rollout_scores/mean", "policy/sqrt_kl"),
        kl={
            "policy/kl": Kl("sequence", "is k2, l²/2, over prompt and response: too high where KL is large", K2),
            "policy/sqrt_kl": ROOT,
            "policy/kl_per_token": ROOT,
        },
        proxy=("rollout_scores/mean",),
    ),
    "AlpacaFarm": Trainer(
        marks=("objective/kl_sum_seq",),
        kl={
            "objective/kl_sum_seq": Kl("no", "leaves out negative log-ratios: too high, most where KL is small"),
            "objective/kl_avg_seq": Kl("no", "leaves out negative log-ratios: too high, most where KL is small"),
        },
        proxy=("objective/rewards",),
    ),
    "NeMo-RL": Trainer(
        marks=("gen_kl_error", "policy_kl_error", "token_mult_prob_error", "js_divergence_error"),
        kl={
            "kl_penalty": Kl("token", f"{CUT}, unless kl_output_clamp_value is null", "k3, or as its kl_type says"),
            "gen_kl_error": ENGINE,
            "policy_kl_error": ENGINE,
            "js_divergence_error": ENGINE,
        },
        proxy=("reward",),
        length=("mean_gen_tokens_per_sample",),
        gold=("validation/accuracy", "validation/*accuracy*", "validation/*reward*"),
        no_kl="logs kl_penalty 0 or none while reference_policy_kl_penalty is 0: set it (1e-3 changes little)",
    ),
    "SkyRL": Trainer(
        marks=("reward/avg_raw_reward", "loss/avg_final_rewards", "trainer/global_step"),
        kl={
            "loss/avg_kl": Kl("token", "", "k3, or as kl_estimator_type says"),
            "policy/policy_kl": Kl("token", "", "k3, or as kl_estimator_type says"),
            "loss/avg_kl_max": LARGEST,
            "loss/kl_loss_coef": COEFFICIENT,
        },
        proxy=("reward/avg_raw_reward",),
        length=("generate/avg_num_tokens",),
        gold=("eval/all/avg_score", "eval/*/avg_score", "eval/*/pass_at_1"),
        step=("trainer/global_step", "step"),
        no_kl="computes none unless use_kl_loss (it logs policy/policy_kl) or use_kl_in_reward (loss/avg_kl) is true: "
        "set one of them",
    ),
    "prime-rl": Trainer(
        marks=("mismatch_kl/all/mean", "mismatch_kl/mean", "kl_ent_ratio/mean", "agg/*reward/mean"),
        kl={
            "ref_kl*": Kl("no", "is log p_teacher - log p of distillation: its sign is flipped, and a teacher is "
                          "not the initial policy"),
            "mismatch_kl*": ENGINE,
            "masked_mismatch_kl*": ENGINE,
            "unmasked_mismatch_kl*": ENGINE,
            "kl_ent_ratio*": RATIO,
        },
        proxy=("agg/*effective/*reward/mean", "agg/*reward/mean", "*/reward/mean", "reward/mean"),
        length=("agg/*num_output_tokens/mean", "*/num_output_tokens/mean"),
        gold=("eval/*/avg@*",),
        step=("step", "progress/step"),
        no_kl="computes no KL from the initial policy in RL: score its rollouts by the first checkpoint too, and log "
        "the sum over a response of log p - log p_initial",
    ),
    "slime": Trainer(
        marks=("rollout/raw_reward", "rollout/response_len/mean", "train_rollout_logprob_abs_diff", "rollout/step"),
        kl={
            "kl_loss": Kl("token", "", "the estimator that kl_loss_type names"),
            "ppo_kl": OLD,
            "rollout/kl": Kl("token", "", "the estimator that kl_loss_type names"),
            "kl_loss_coef": COEFFICIENT,
        },
        proxy=("rollout/raw_reward", "rollout/rewards"),
        length=("rollout/response_len/mean", "rollout/response_lengths"),
        gold=("eval/*",),
        step=("rollout/step", "step", "eval/step"),
        no_kl="logs train/kl_loss only with --use-kl-loss: set it, with --kl-loss-coef 0 if you want no penalty",
    ),
    "AReaL": Trainer(
        marks=("*/task_reward/avg", "*/kl_rewards/avg", "*/behave_approx_kl/avg"),
        kl={
            "*/kl_rewards/avg": Kl("no", "is -kl_ctl times the KL per token, as it stands in the reward"),
            "*/approx_kl/avg": OLD,
            "*/behave_approx_kl/avg": OLD,
        },
        proxy=("*/task_reward/avg",),
        length=("*/seq_len/avg",),
        gold=("eval-rollout/reward*", "eval*/reward*"),
        step=("global_step", "step"),
        no_kl="logs no KL by itself: with kl_ctl above 0 make a column of kl_rewards/avg / -kl_ctl, a mean per token",
    ),
    "tunix": Trainer(
        marks=("rewards/train/score/mean", "actor/train/kl", "completions/train/mean_length", "actor/train/loss"),
        kl={"actor/train/kl": Kl("token", "", "k1, or as kl_loss_mode says")},
        proxy=("rewards/train/score/mean",),
        length=("completions/train/mean_length", "generation/train/completions/mean_length"),
        gold=("rewards/eval/score/mean", "rewards/eval/*"),
        no_kl="logs actor/train/kl only while beta is not 0: set beta (1e-3 changes little)",
    ),
    "tinker": Trainer(
        marks=("env/all/reward/total", "env/all/ac_tokens_per_turn", "optim/kl_sample_train_v1", "progress/batch"),
        kl={
            "kl_policy_base": Kl("token", "", K1),
            "optim/kl_sample_train_v1": ENGINE,
            "optim/kl_sample_train_v2": ENGINE,
            "kl_pre_post_v1": OLD,
            "kl_pre_post_v2": OLD,
        },
        proxy=("env/all/reward/total", "reward/total"),
        length=("env/all/ac_tokens_per_turn",),
        gold=("test/env/all/*", "test/*"),
        step=("progress/batch", "step"),
        no_kl="logs kl_policy_base only while kl_penalty_coef is above 0: set it (1e-3 changes little)",
    ),
    "marin": Trainer(
        marks=("reinforce_loss", "trainer_inference_importance_sampling_ratio_mean", "trainer_sampler_prob_diff_mean"),
        kl={"kl_penalty": Kl("token", "", K3), "kl_loss": WEIGHTED},
        proxy=("*mean_reward", "*reward/mean", "*reward_mean", "*/reward"),
        length=("response_tokens_length",),
        gold=("eval/*reward*", "inference.eval/*"),
        no_kl="logs kl_penalty 0 while kl_coef is 0: set it (1e-3 changes little)",
    ),
}  # fmt: skip
PENALISED = ("objective/rlhf_reward", "critic/rewards/mean", "return", "objective/shaped_rewards",
             "loss/avg_final_rewards", "*/final_reward/avg", "rewards/train/reward/mean")  # fmt: skip


def plain(name: str) -> str:
    """Without what trainers put before names: the Trainer's `eval_x` is `eval/x` in wandb, its `x` is `train/x`."""
    return re.sub("^eval_", "eval/", name.removeprefix("train/"))


def like(name: str, wanted: str) -> bool:
    """Whether a column is the one that a trainer calls so, `*` standing for any text."""
    if "*" not in wanted:
        return plain(name) == plain(wanted)
    return fnmatchcase(plain(name), wanted) or fnmatchcase(name, wanted)


def trainer_of(names: Sequence[str]) -> str | None:
    """Which of `TRAINERS` wrote a log with these columns."""
    have = {plain(name) for name in names}
    for trainer, columns in TRAINERS.items():
        exact = {mark for mark in columns.marks if "*" not in mark}
        if have & exact:
            return trainer
        if any(like(name, mark) for mark in columns.marks if "*" in mark for name in names):
            return trainer
    return None


def known(name: str, trainer: str) -> Kl | None:
    """What a trainer's KL column holds; None if it has no such column."""
    return next((kl for wanted, kl in TRAINERS[trainer].kl.items() if like(name, wanted)), None)
