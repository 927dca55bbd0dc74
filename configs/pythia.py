"""The open setting of Coste et al. (2023): a Pythia policy, proxies from the Pythia ladder, a gold RM of the hub.

    launch/local.sh rmo run configs/pythia.py --world.prompts prompts.jsonl --world.demonstrations demonstrations.jsonl

Policy Pythia-1.4B, fine-tuned on demonstrations; proxies from Pythia 14M to 2.8B with a fresh head, three seeds each;
gold Skywork-Reward-V2-Llama-3.1-8B, which reads text through its own tokenizer and chat template. Prompts as in
AlpacaFarm; by default Alpaca's own, from the hub.

PLANS, computed and not measured; nothing here has been run at this size. Memory: 16 bytes per trained parameter
(float32 master weights, gradient, two moments), 2 or 4 per frozen one, what the backward pass keeps without remat
(34 T D + 5 H T^2 bytes per layer and sequence), a piece of the logits. Hours of one chip of 1 PFLOP/s bf16 at 40% and
3 TB/s: 6 FLOPs per trained parameter and token, 2 per frozen one, decoding bound by weights; divided by the chips of a
slice, over which states and batches are split. `rmo plan` asks the TPU compiler instead.

| stage       | memory of all chips | chip-hours |
|-------------|---------------------|------------|
| sft         |               59 GB |        0.0 |
| gold        |               15 GB |        0.0 |
| samples     |               27 GB |        2.3 |
| comparisons |               27 GB |        0.4 |
| proxies     |              530 GB |        1.5 |
| bon         |               32 GB |        3.7 |
| ppo         |              227 GB |       83.3 |
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

ALPACA = "hub:tatsu-lab/alpaca/data/*.parquet"
SKYWORK = Model(
    checkpoint="Skywork/Skywork-Reward-V2-Llama-3.1-8B", reads="chat", vocab=128_256, length=131_072, width=4096,
    layers=32, heads=32, kv_heads=8, hidden=14_336, activation="silu", gated=True, norm_eps=1e-5, tied=False,
    rotary_base=500_000.0, rotary_scaling=(8.0, 1.0, 4.0, 8192.0), dtype="bfloat16",
)  # fmt: skip


def pythia(size: str, width: int, layers: int, heads: int) -> Model:
    return Model(
        checkpoint=f"EleutherAI/pythia-{size}", vocab=50_304, length=2048, width=width, layers=layers, heads=heads,
        hidden=4 * width, activation="gelu_exact", norm="layer", norm_eps=1e-5, bias="all", parallel=True, tied=False,
        rotary_share=0.25, dtype="bfloat16",
    )  # fmt: skip


def experiment() -> Experiment:
    return Experiment(
        name="pythia",
        world=Text(
            prompts=ALPACA, demonstrations=ALPACA, template="### Instruction:\n{prompt}\n\n### Response:\n",
            prompt=128, response=128,
        ),
        policy=pythia("1.4b", 2048, 24, 16),
        sft=SFT(texts=10_000, epochs=3, batch=64, optimizer=Optimizer(lr=8e-6, warmup=50)),
        gold=Gold(kind="checkpoint", model=SKYWORK),
        comparisons=Comparisons(prompts=12_000, pairs=4),
        proxies=Proxies(
            sizes=(
                pythia("14m", 128, 6, 4), pythia("31m", 256, 6, 8), pythia("70m", 512, 6, 8),
                pythia("160m", 768, 12, 12), pythia("410m", 1024, 24, 16), pythia("1b", 2048, 16, 8),
                pythia("1.4b", 2048, 24, 16), pythia("2.8b", 2560, 32, 32),
            ),
            sweeps=(Sweep("main", (Recipe(40_000),)), Sweep("noise", (Recipe(40_000, flip=0.25),), sizes=(2, 4))),
            seeds=3,
            optimizer=Optimizer(lr=6e-4, warmup=20),  # at width 16: 1e-5 at 1024
        ),
        bon=BestOfN(prompts=48, draws=12_288, max_n=4096, points=40, chunk=256),
        gold_as_proxy=GoldAsProxy(ppo_seeds=0),  # as a reward gold would be held twice
        ppo=PPO(
            against=(Against("main", sizes=(0, 2, 4, 6)), Against("noise", sweep="noise", sizes=(2,))),
            kl_max=150.0,
            max_steps=1500,
            d_step=0.4,
            prompts=12_000,
            batch=256,
            epochs=4,
            minibatches=8,
            policy_optimizer=Optimizer(lr=1e-6, schedule="constant"),
            critic_optimizer=Optimizer(lr=5e-6, schedule="constant"),
            read_draws=4,
        ),
    )  # fmt: skip
