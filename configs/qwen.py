"""A policy of today under a strong open RM: Qwen3-0.6B against Qwen3 proxies, gold Skywork-Reward-V2.

    launch/local.sh rmo run configs/qwen.py --world.prompts prompts.jsonl --world.demonstrations demonstrations.jsonl

Policy Qwen3-0.6B-Base, fine-tuned on the preferred answers of UltraFeedback; proxies from Qwen3 0.6B, 1.7B and 4B
with a fresh head, three seeds each; gold Skywork-Reward-V2-Qwen3-8B, which has the policy's vocabulary but reads
dialogues, so it reads text through its chat template.

PLANS, computed as in configs/pythia.py and not measured; nothing here has been run at this size.

| stage       | memory of all chips | chip-hours |
|-------------|---------------------|------------|
| sft         |               80 GB |        0.0 |
| gold        |               15 GB |        0.0 |
| samples     |               25 GB |        2.8 |
| comparisons |               25 GB |        0.7 |
| proxies     |             1389 GB |        3.6 |
| bon         |               48 GB |        6.8 |
| ppo         |              201 GB |       26.6 |
"""

from rmo.config import (
    PPO,
    SFT,
    Against,
    BestOfN,
    Comparisons,
    Experiment,
    Gold,
    GoldAsProxy,
    Model,
    Optimizer,
    Proxies,
    Recipe,
    Sweep,
    Text,
)

ULTRAFEEDBACK = "hub:HuggingFaceH4/ultrafeedback_binarized/data/train_prefs-*.parquet"


def qwen3(name: str, width: int, layers: int, heads: int, hidden: int, length: int, **more) -> Model:
    fields = {
        "vocab": 151_936, "length": length, "width": width, "layers": layers, "heads": heads, "kv_heads": 8,
        "head": 128, "hidden": hidden, "activation": "silu", "gated": True, "qk_norm": True,
        "rotary_base": 1_000_000.0, "dtype": "bfloat16",
    }  # fmt: skip
    return Model(checkpoint=name, **(fields | more))


POLICY = qwen3("Qwen/Qwen3-0.6B-Base", 1024, 28, 16, 3072, 32_768)
SKYWORK = qwen3("Skywork/Skywork-Reward-V2-Qwen3-8B", 4096, 36, 32, 12_288, 40_960, tied=False, reads="chat")


def experiment() -> Experiment:
    return Experiment(
        name="qwen",
        world=Text(
            prompts=ULTRAFEEDBACK, demonstrations=ULTRAFEEDBACK, template="User: {prompt}\n\nAssistant: ",
            prompt=256, response=256,
        ),
        policy=POLICY,
        sft=SFT(texts=16_000, epochs=1, batch=64, optimizer=Optimizer(lr=1e-5, warmup=25)),
        gold=Gold(kind="checkpoint", model=SKYWORK),
        comparisons=Comparisons(prompts=12_000, pairs=4),
        proxies=Proxies(
            sizes=(
                POLICY,
                qwen3("Qwen/Qwen3-1.7B-Base", 2048, 28, 16, 6144, 32_768),
                qwen3("Qwen/Qwen3-4B-Base", 2560, 36, 32, 9728, 32_768),
            ),
            sweeps=(
                Sweep("main", (Recipe(40_000),)),
                Sweep("data", (Recipe(2000), Recipe(8000)), sizes=(0,)),
                Sweep("noise", (Recipe(40_000, flip=0.25),), sizes=(0,)),
            ),
            seeds=3,
            optimizer=Optimizer(lr=6e-4, warmup=20),  # at width 16: 1e-5 at 1024
        ),
        bon=BestOfN(prompts=48, draws=8192, max_n=2048, points=36, chunk=256),
        gold_as_proxy=GoldAsProxy(ppo_seeds=0),  # as a reward gold would be held twice
        ppo=PPO(
            against=(Against("main", sizes=(0, 1)), Against("noise", sweep="noise")),
            kl_max=150.0,
            max_steps=1500,
            d_step=0.4,
            prompts=12_000,
            batch=256,
            epochs=2,
            minibatches=8,
            policy_optimizer=Optimizer(lr=1e-6, schedule="constant"),
            critic_optimizer=Optimizer(lr=5e-6, schedule="constant"),
            read_draws=4,
        ),
    )  # fmt: skip
