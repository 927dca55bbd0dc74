"""PPO iterations: `rmo.methods.ppo` against `trl==1.12.0`, the last TRL with a `PPOTrainer`: four networks of one shape, the same
weights, lengths, epochs, minibatches and optimizer; and several runs in one program against one after another.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.sample import SHAPES, weights, words

TINY = Path(__file__).parents[2] / "configs" / "tiny.py"
LR, KL_COEF, CLIP, LAM, VALUE_COEF = 1e-5, 0.05, 0.2, 0.95, 0.1
# name, shape, episodes, prompt, response, epochs, minibatches, iterations that are timed, and of them by TRL
CASES = [
    ("8.9M, 32 episodes of 32 + 64", "8.9M", 32, 32, 64, 4, 1, 2, 1),
    ("tiny's policy, 256 episodes of 6 + 18", "tiny", 256, 6, 18, 1, 4, 20, 4),
]
RUNS = {"members": 4, "iterations": 12}


def cases(top: Path) -> list[dict[str, Any]]:
    from tests.helpers.checkpoints import write_checkpoint

    names, out = ("name", "shape", "batch", "prompt", "new", "epochs", "minibatches", "iterations", "theirs"), []
    for values in CASES:
        case = dict(zip(names, values, strict=True))
        family, shape = SHAPES[case["shape"]]
        for kind in ("lm", "rm"):
            write_checkpoint(top / f"ppo-{case['shape']}-{kind}", family, kind, **shape)
            case[kind] = str(top / f"ppo-{case['shape']}-{kind}")
        blocks, table = weights(case["shape"])
        every, new = case["batch"] * (case["prompt"] + case["new"]), case["batch"] * case["new"]
        sampled = 2 * (blocks * every + table * new)
        judged = 2 * (4 * blocks * every + 2 * table * new)  # policy, reference, reward, critic
        learned = 6 * case["epochs"] * (2 * blocks * every + table * new)
        case["share"] = case["theirs"] / case["iterations"]
        out.append(case | {"flops": case["iterations"] * (sampled + judged + learned)})
    name = f"tiny, {RUNS['members']} runs of {RUNS['iterations']} iterations: one program, one after another"
    return [*out, {"name": name, "packages": False, **RUNS}]


def texts(case: dict[str, Any]) -> np.ndarray:
    """i64[B, P + R] without pad, to compare what both sides' networks say."""
    vocab = SHAPES[case["shape"]][1]["vocab_size"]
    return np.random.default_rng(0).integers(3, vocab, (case["batch"], case["prompt"] + case["new"]))


def ours(case):
    if "members" in case:
        return several(case, as_one=True)
    import jax
    import jax.numpy as jnp

    from rmo import config
    from rmo.checkpoints import hf
    from rmo.methods.ppo import loop as ppo_loop
    from rmo.methods.ppo import update as ppo
    from rmo.models import scoring, transformer
    from rmo.rewards.calibration import Calibration
    from rmo.rewards.reward import Reward, RewardParams

    lm, policy = hf.load_language_model(case["lm"])
    rm, proxy = hf.load_reward_model(case["rm"])
    optimizer = config.Optimizer(lr=LR, schedule="constant", b1=0.9, b2=0.999)
    c = config.PPO(
        batch=case["batch"], epochs=case["epochs"], minibatches=case["minibatches"], clip=CLIP, lam=LAM,
        policy_optimizer=optimizer, critic_optimizer=optimizer, kl_max=1e9, max_steps=2**20, patience=2**20, d_step=1e3,
    )  # fmt: skip
    s = ppo.Setup(lm, rm, Reward(rm), rm, c, case["new"], -1, side_by_side=False)
    tokens = jnp.asarray(texts(case), jnp.int32)
    prompts = tokens[:, : case["prompt"]], jnp.ones((case["batch"], case["prompt"]), bool)
    frozen = ppo.Frozen(policy, proxy, Calibration(), prompts, prompts)
    one = partial(jax.tree.map, lambda x: jnp.asarray(x)[None])
    member = ppo.Task(RewardParams(proxy, Calibration()), jax.random.key(0), jnp.float32(KL_COEF), jnp.float32(0))
    members = one(member)
    begin = jax.jit(lambda: ppo.begin(s, policy, proxy))
    last = ppo_loop.advance(s, frozen, members, one(begin()), limit=1)[1]

    def run() -> dict[str, float]:
        states, parts = jax.block_until_ready(one(begin())), {}
        started = time.perf_counter()
        states, _ = ppo_loop.advance(s, frozen, members, states, last, limit=case["iterations"])
        assert int(jax.block_until_ready(states.iteration)[0]) == case["iterations"]
        parts["seconds"] = time.perf_counter() - started

        def timed(what, program, *args):
            started = time.perf_counter()
            found = jax.block_until_ready(program(s, *args))
            parts[what] = time.perf_counter() - started
            return found

        drawn = timed("sample", ppo_loop.draw_one, frozen, members, states, 0)
        batch, out = timed("score", ppo_loop.judge_one, frozen, members, states, 0, drawn)
        timed("update", ppo_loop.learn_one, members, states, jax.tree.map(jnp.copy, last), 0, batch, out)
        return parts

    def answers():
        mask = jnp.ones(tokens.shape, bool)
        logits = jax.jit(partial(transformer.logits, lm))(policy, tokens, mask)[0]
        return {"logits": np.asarray(logits[:, -1]), "scores": np.asarray(scoring.score(rm, proxy, tokens, mask))}

    return run, answers


def peer(case):
    if "members" in case:
        return several(case, as_one=False)
    import tempfile

    import torch
    import transformers
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    tokens, tokenizer = texts(case), words(case["shape"])
    dataset = Dataset.from_dict({"input_ids": tokens[:, : case["prompt"]].tolist()})
    lm = transformers.AutoModelForCausalLM.from_pretrained
    rm = partial(transformers.AutoModelForSequenceClassification.from_pretrained, num_labels=1)
    args = PPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=case["batch"], gradient_accumulation_steps=1,
        num_mini_batches=case["minibatches"], num_ppo_epochs=case["epochs"], response_length=case["new"],
        local_rollout_forward_batch_size=case["batch"], total_episodes=case["batch"] * (case["theirs"] + 1),
        temperature=1.0, stop_token=None, missing_eos_penalty=None, kl_coef=KL_COEF, cliprange=CLIP,
        cliprange_value=CLIP, lam=LAM, gamma=1.0, vf_coef=VALUE_COEF, whiten_rewards=False, learning_rate=LR,
        lr_scheduler_type="constant", num_sample_generations=0, use_cpu=True, bf16=False, gradient_checkpointing=False,
        report_to="none", save_strategy="no", logging_steps=10**6, disable_tqdm=True,
    )  # fmt: skip
    generate = ppo_trainer.batch_generation

    class Clock(transformers.TrainerCallback):
        """Ends of iterations; seconds in `generate` and, from the first minibatch on, in updating."""

        def __init__(self):
            self.ends, self.sample, self.update, self.updating = [], [], [], 0.0

        def on_step_end(self, *_, **__):
            self.ends.append(time.perf_counter())
            self.update.append(self.ends[-1] - self.updating)
            self.updating = 0.0

        def timed_generation(self, *args):
            started = time.perf_counter()
            found = generate(*args)
            self.sample.append(time.perf_counter() - started)
            return found

        def watch(self, accelerator):
            accumulate = accelerator.accumulate

            def first(*args):
                self.updating = self.updating or time.perf_counter()
                return accumulate(*args)

            accelerator.accumulate = first

    def run() -> dict[str, float]:
        clock = Clock()
        ppo_trainer.batch_generation = clock.timed_generation
        trainer = PPOTrainer(
            args, tokenizer, lm(case["lm"]), lm(case["lm"]), rm(case["rm"]), dataset, rm(case["rm"]),
            eval_dataset=dataset, callbacks=[clock],
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        clock.watch(trainer.accelerator)
        trainer.train()
        seconds = np.diff(clock.ends)  # the first iteration warms up
        sample, update = np.mean(clock.sample[1:]), np.mean(clock.update[1:])
        rest = seconds.mean() - sample - update
        return {"seconds": float(seconds.sum()), "sample": sample, "score": rest, "update": update}

    def answers():
        with torch.inference_mode():
            ids = torch.tensor(tokens)
            mask = torch.ones_like(ids)
            logits = lm(case["lm"]).eval()(ids, attention_mask=mask).logits[:, -1]
            scores = rm(case["rm"]).eval()(ids, attention_mask=mask).logits[:, 0]
        return {"logits": logits.numpy(), "scores": scores.numpy()}

    return run, answers


def several(case, as_one: bool):
    """PPO iterations of runs that differ in their KL penalty, as the stage `ppo` makes them, or each by itself."""
    import jax
    import jax.numpy as jnp

    from rmo import config
    from rmo.config import checks
    from rmo.methods.ppo import loop as ppo_loop
    from rmo.methods.ppo import update as ppo
    from rmo.models import transformer
    from rmo.rewards.calibration import Calibration
    from rmo.rewards.reward import Reward, RewardParams
    from rmo.worlds.synthetic import EOS, SyntheticWorld

    e, steps, runs = checks.load(TINY), case["iterations"], case["members"]
    w = e.world
    lm = transformer.LanguageModel(e.policy, w.vocab, w.prompt + w.response)
    rm = partial(transformer.RewardModel, vocab=w.vocab, length=w.prompt + w.response)
    proxy, critic = rm(e.proxies.sizes[2]), rm(e.policy)
    prompts = tuple(map(jnp.asarray, SyntheticWorld(w).prompts(np.random.default_rng(0), 512, "optimise")))
    reference = transformer.init(lm, jax.random.key(0))
    c = config.PPO(batch=e.ppo.batch, max_steps=steps, patience=steps, kl_max=1e9, d_step=1e3)
    side_by_side = jax.default_backend() != "cpu"  # as stages.optimise chooses
    s = ppo.Setup(lm, critic, Reward(proxy), proxy, c, w.response, EOS, side_by_side)
    params = transformer.init(proxy, jax.random.key(1))
    frozen = ppo.Frozen(reference, params, Calibration(), prompts, prompts)
    fresh = ppo.begin(s, reference, transformer.init(critic, jax.random.key(2)))
    repeat = lambda tree, m: jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x)[None], m, axis=0), tree)
    coefs = jnp.linspace(0, 0.3, runs)

    def go(which: list[int]) -> np.ndarray:
        m = len(which)
        keys = jnp.stack([jax.random.key(3)] * m)
        members = ppo.Task(
            repeat(RewardParams(params, Calibration()), m), keys, coefs[jnp.array(which)], jnp.zeros(len(which))
        )
        states, _ = ppo_loop.advance(s, frozen, members, repeat(fresh, m))
        sums = jax.tree.map(lambda x: jnp.sum(jnp.abs(x), axis=tuple(range(1, x.ndim))), states.policy.params)
        return np.asarray(sum(jax.tree.leaves(sums)))

    def run() -> dict[str, np.ndarray]:
        groups = [list(range(runs))] if as_one else [[i] for i in range(runs)]
        return {"size of the weights": np.concatenate([go(group) for group in groups])}

    return lambda: run() and None, run
