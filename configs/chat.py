"""The paper's shape on real English: a policy that people's chats taught, gold that learned VADER's valence.

    EXTRAS=dev,chat launch/local.sh rmo run configs/chat.py --jobs 2

- **Text**: the turns of PyPI's `chitchat-dataset` (rmo/worlds/chitchat.py): 52,707 pairs of a turn of at most 16 words
  and a reply of at most 16, through a BPE of 2,048 tokens trained on them.
- **Judge**: VADER's compound score of the reply (rmo/worlds/valence.py), a lexicon with rules. Gold, 394k parameters,
  is regressed on it over people's replies, the policy's, hot and cold, and text that nobody would write; the judge is
  read beside gold along every path, so that one sees where gold itself is exploited. **Gold is VADER valence, and not
  what people prefer.**
- **Policy** of 0.85M parameters; proxies of 801 to 98,689 (embeddings apart) on 8,000 comparisons, and all of them on
  80 and on 800, each trained for as many steps or to its validation minimum; three seeds.
- **Best-of-n** to n = 512 against all; **PPO** to 80 nats against every size on 8,000, against the largest on 800, and
  against gold.

28 minutes on two CPU cores beside other work, installing included, at most 3.4 GB in one of its two processes
(`chat_small.py`: 7 minutes). What came out is kept in `configs/results/chat`. Nothing was run before this config was
written, but for the lengths of the data and VADER's scores of people's replies; no setting was changed after a run.
PPO's learning rate is twice that of `tiny`, because KL has three times as far to go in as many iterations.

The chats are real people's, and prompts are quoted in the run directory and its report: publish no more than a few
words of any one.
"""

from rmo.config import (
    PPO,
    SFT,
    Against,
    BestOfN,
    Comparisons,
    Experiment,
    Gold,
    Model,
    Optimizer,
    Proxies,
    Recipe,
    Sweep,
    Text,
)

TURNS = "python:rmo.worlds.chitchat:short_replies"
TOKENS = 2048
NOTE = (
    "Gold is VADER valence: it learned how positive a lexicon with rules calls a reply, not what people prefer. The "
    "policy learned from chats of real people, whose turns are its prompts."
)


def model(width: int, layers: int, heads: int) -> Model:
    return Model(width=width, layers=layers, heads=heads, activation="relu")


def reward_model(width: int, layers: int, heads: int) -> Model:
    """Without a norm before its head, as in `tiny`."""
    return Model(width=width, layers=layers, heads=heads, activation="relu", pooling="unnormed")


def experiment() -> Experiment:
    return Experiment(
        name="chat",
        note=NOTE,
        world=Text(
            prompts=TURNS,
            demonstrations=TURNS,
            tokenizer=f"bpe:{TOKENS}",
            template="{prompt}\n",
            prompt=24,
            response=24,
            judge="rmo.worlds.valence:valence",
        ),
        policy=Model(vocab=TOKENS, width=128, layers=3, heads=4, activation="relu"),
        sft=SFT(texts=38_000, epochs=2, optimizer=Optimizer(lr=1e-3, warmup=50)),
        gold=Gold(model=model(128, 2, 4), texts=48_000, epochs=3, batch=128, optimizer=Optimizer(lr=2e-3, warmup=50)),
        comparisons=Comparisons(prompts=2600, pairs=4),
        proxies=Proxies(
            sizes=(reward_model(8, 1, 2), reward_model(16, 1, 2), reward_model(32, 1, 4), reward_model(64, 2, 4)),
            sweeps=(Sweep("main", (Recipe(8000),)), Sweep("data", (Recipe(80), Recipe(800)))),
            start="language_model",
            trunk=SFT(texts=16_000, epochs=1, optimizer=Optimizer(lr=4e-3)),
            steps=125,
            stop_early=True,
            seeds=3,
            optimizer=Optimizer(lr=5e-3),
        ),
        bon=BestOfN(prompts=32, draws=1024, max_n=512),
        ppo=PPO(
            against=(Against("main"), Against("data", sweep="data", sizes=(3,), recipes=(1,))),
            kl_max=80.0,
            max_steps=160,
            d_step=0.5,
            batch=64,
            policy_optimizer=Optimizer(lr=3e-4, schedule="constant", eps=1e-3),
        ),
    )
