"""The stages. Each is a function `(run, directory)` that fills its directory from the directories before it.

Read them top to bottom: this is the whole experiment. `pipeline.plan` says how they depend on one another.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmo import audit, bon, config, data, fit, losses, metrics, models, ppo, reward
from rmo.curve import COLUMNS, Curve, from_prompts, to_rows
from rmo.files import SCRATCH, Checkpoints, Log, read_json, read_npz, save_params, write_csv, write_json, write_npz
from rmo.run import Run
from rmo.sample import join, response_logits, sample, sample_n
from rmo.train import train
from rmo.world import EOS, Texts, concatenate


def parts(
    directory: Path, count: int, make: Callable[[int], dict[str, np.ndarray]], log: Log
) -> Iterator[dict[str, np.ndarray]]:
    """Yield part 0..count-1, made once and kept in `directory`, so that a killed stage continues where it was."""
    log.resume(0)
    for i in range(count):
        file = directory / f"{i:05d}.npz"
        if not file.exists():
            write_npz(file, **make(i))
        log.bar.update(i + 1 - log.bar.n)
        yield read_npz(file)
    log.close()


# The stages.


def sft(run: Run, out: Path) -> None:
    """The initial policy: next-token training on response tokens of the corpus."""
    e, lm = run.experiment, run.lm()
    texts = run.world.corpus(run.rng("sft"), e.sft.texts)
    held_out = run.world.corpus(run.rng("sft held out"), 2048)
    data.make_tokenizer(run.world.vocabulary, out / "tokenizer")

    def loss(params, batch):
        return losses.next_token(response_logits(lm, params, *batch), batch.tokens, batch.mask), {}

    steps = e.sft.epochs * (e.sft.texts // e.sft.batch)
    rows = data.epochs(e.sft.texts, e.sft.batch, run.seeds("sft order"))
    params = train(
        lambda: models.init(lm, run.key("sft")), loss, lambda step: texts.rows(rows(step)), steps,
        e.sft.optimizer, run.mesh, Checkpoints(out), Log(out, "sft", steps),
    )  # fmt: skip
    save_params(out / "params", params)
    info = {"params": models.count(params), "steps": steps, "held_out_loss": jax.jit(loss)(params, held_out)[0]}
    write_json(out / "info.json", info)


def gold(run: Run, out: Path) -> None:
    """The gold RM: regressed on the annotator over broad text, or a random teacher."""
    e, rm = run.experiment, run.gold_rm()
    world, rng = run.world, run.rng("gold")
    texts = broad_texts(run, rng, e.gold.texts)
    raw = world.score(texts)
    mean, std = raw.mean(), raw.std()
    target = ((raw - mean) / std).astype(np.float32)
    held = max(e.gold.texts // 20, 1)

    def loss(params, batch):
        texts_B, target_B = batch
        return losses.squared_error(reward.score(rm, params, *join(*texts_B)), target_B), {}

    fresh = lambda: models.init(rm, run.key("gold"))  # noqa: E731
    if e.gold.kind == "random":
        params = jax.jit(fresh)()
    else:
        train_size = e.gold.texts - held
        rows = data.epochs(train_size, e.gold.batch, run.seeds("gold order"))
        kept = texts.rows(slice(held, None))
        pick = lambda i: (kept.rows(i), target[held:][i])  # noqa: E731
        steps = e.gold.epochs * (train_size // e.gold.batch)
        log = Log(out, "gold", steps)
        params = train(fresh, loss, lambda s: pick(rows(s)), steps, e.gold.optimizer, run.mesh, Checkpoints(out), log)
    save_params(out / "params", params)
    held_out = texts.rows(slice(held))
    predicted = reward.score_all(rm, params, *held_out.sequences(), e.bon.chunk)
    info = {
        "kind": e.gold.kind, "params": models.count(params), "texts": e.gold.texts,
        "held_out_broad_text": {"r2": float(1 - np.mean((predicted - target[:held]) ** 2) / target[:held].var()),
                                "rank_correlation": audit.rank_correlation(predicted, target[:held])},
    }  # fmt: skip
    write_json(out / "info.json", info)


def broad_texts(run: Run, rng: np.random.Generator, size: int) -> Texts:
    """A quarter each: corpus; policy samples at temperatures 0.3 to 2.5; corpus made broad; policy samples made broad.

    Broad text is what teaches gold that collapsed text is bad, which no proxy trained on-policy can know.
    """
    quarter = -(-size // 4)
    corpus = run.world.corpus(rng, quarter)
    params, lm = run.load("sft", run.lm()), run.lm()
    prompts = run.world.corpus(rng, quarter)
    temperatures = np.exp(rng.uniform(np.log(0.3), np.log(2.5), 16))
    draw = jax.jit(partial(sample, lm, length=run.experiment.world.response, eos=EOS))
    sampled = []
    for i, block in enumerate(np.array_split(np.arange(quarter), 16)):
        pad = quarter // 16 + 1 - len(block)  # equal shapes: one compilation
        rows = np.concatenate([block, block[:pad]])
        keys = jax.random.split(jax.random.fold_in(run.key("broad"), i), len(rows))
        s = draw(
            params, prompts.prompts[rows], prompts.prompt_mask[rows], keys, temperature=jnp.float32(temperatures[i])
        )
        sampled.append(Texts(prompts.prompts[block], prompts.prompt_mask[block],
                             np.asarray(s.tokens)[: len(block)], np.asarray(s.mask)[: len(block)]))  # fmt: skip
    policy = concatenate(sampled)
    everything = concatenate([corpus, policy, run.world.broad(rng, corpus), run.world.broad(rng, policy)])
    order = rng.permutation(len(everything.tokens))[:size]
    return everything.rows(order)


def samples(run: Run, out: Path) -> None:
    """[Q, N] draws of the initial policy with gold scores: one pool for every RM; gold's calibration comes from it."""
    e, lm, rm = run.experiment, run.lm(), run.gold_rm()
    policy, gold_params = run.load("sft", lm), run.load("gold", rm)
    prompts = run.world.prompts(run.rng("read prompts"), e.bon.prompts, "read")
    write_npz(out / "prompts.npz", tokens=prompts.tokens, mask=prompts.mask)
    chunk = min(e.bon.chunk, e.bon.draws)

    def make(q: int) -> dict[str, np.ndarray]:
        prompt, mask = jnp.asarray(prompts.tokens[q]), jnp.asarray(prompts.mask[q])
        key = jax.random.fold_in(run.key("samples"), q)
        s = sample_n(lm, policy, prompt, mask, key, e.bon.draws, e.world.response, EOS, chunk)
        scores = reward.score_n(rm, gold_params, prompt, mask, s.tokens, s.mask, chunk)
        dtype = np.uint8 if e.world.vocab <= 256 else np.int32
        return {"tokens": np.asarray(s.tokens).astype(dtype), "mask": np.asarray(s.mask),
                "logps": np.asarray(s.logps.sum(1)), "gold": np.asarray(scores)}  # fmt: skip

    log = Log(out, "samples", e.bon.prompts, "prompt")
    table = np.stack([part["gold"] for part in parts(out / "draws", e.bon.prompts, make, log)])
    write_json(out / "calibration.json", {"shift": float(table.mean(dtype=np.float64)),
                                          "scale": float(1 / table.std(dtype=np.float64))})  # fmt: skip


def comparisons(run: Run, out: Path) -> None:
    """Pairs of the initial policy's responses, labelled by gold; validation is split off by prompt."""
    e, lm, rm = run.experiment, run.lm(), run.gold_rm()
    c = e.comparisons
    policy, gold_params, calibration = run.load("sft", lm), run.load("gold", rm), run.gold_calibration()
    prompts = run.world.prompts(run.rng("comparison prompts"), c.prompts, "comparisons")
    draws = 2 * c.pairs
    per_part = max(1, e.bon.chunk // draws)
    count = -(-c.prompts // per_part)
    draw = jax.jit(partial(sample, lm, length=e.world.response, eos=EOS))
    gold_score = jax.jit(partial(reward.score, rm))

    def make(i: int) -> dict[str, np.ndarray]:
        rows = np.repeat(np.minimum(np.arange(i * per_part, (i + 1) * per_part), c.prompts - 1), draws)
        ids = i * per_part * draws + np.arange(len(rows))  # each draw has a key of its own, whatever the chunk
        keys = jax.vmap(partial(jax.random.fold_in, run.key("comparisons")))(ids)
        s = draw(policy, prompts.tokens[rows], prompts.mask[rows], keys)
        tokens = np.concatenate([prompts.tokens[rows], np.asarray(s.tokens)], 1)
        mask = np.concatenate([prompts.mask[rows], np.asarray(s.mask)], 1)
        keep = min(per_part, c.prompts - i * per_part) * draws
        scores = np.asarray(gold_score(gold_params, tokens, mask))
        return {"tokens": tokens[:keep], "mask": mask[:keep], "gold": scores[:keep]}

    log = Log(out, "comparisons", count, "part")
    made = list(parts(out / SCRATCH / f"parts-{per_part}", count, make, log))
    columns = (np.concatenate([part[name] for part in made]) for name in ("tokens", "mask", "gold"))
    tokens, mask, scores = (x.reshape(-1, 2, *x.shape[1:]) for x in columns)
    prompt = np.repeat(np.arange(c.prompts, dtype=np.int32), c.pairs)
    rng = run.rng("labels")
    first_wins = label(rng, (scores[:, 0] - scores[:, 1]) * calibration.scale, c)
    order = np.where(first_wins[:, None], [[0, 1]], [[1, 0]])
    pick = lambda x: np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)  # noqa: E731
    rows = data.Comparisons(pick(tokens), pick(mask), pick(scores).astype(np.float32), prompt)
    held = np.isin(prompt, rng.permutation(c.prompts)[: round(c.prompts * c.held_out)])
    split = lambda keep: data.Comparisons(*(x[keep] for x in rows))  # noqa: E731
    data.write_comparisons(out / "dataset", train=split(~held), validation=split(held))
    agree = float(np.mean(rows.gold[:, 0] > rows.gold[:, 1]))
    ties = float(np.mean(scores[:, 0] == scores[:, 1]))
    counts = {"train": int((~held).sum()), "validation": int(held.sum())}
    write_json(out / "info.json", {**counts, "agreement_with_gold": agree, "ties": ties})


def label(rng: np.random.Generator, gap_C: np.ndarray, c: config.Comparisons) -> np.ndarray:
    """Whether the first of each pair is preferred, from the gold gap in standard deviations. Ties are a coin's toss."""
    coin = rng.random(len(gap_C))
    if c.labels == "sampled":
        return coin < 1 / (1 + np.exp(-gap_C / c.temperature))
    first = np.where(gap_C == 0, coin < 0.5, gap_C > 0)
    return first ^ (rng.random(len(gap_C)) < c.flip) if c.labels == "flipped" else first


def proxy(run: Run, out: Path, shape: config.Model, count: int, name: str) -> None:
    """Proxy RMs of one shape on one number of comparisons, all seeds in one vmapped program."""
    e, rm, p = run.experiment, run.rm(shape), run.experiment.proxies
    rows = data.read_comparisons(run.path("comparisons") / "dataset", "train")

    def loss(params, batch):
        tokens_B2T, mask_B2T = batch
        t = tokens_B2T.shape[-1]
        scores = reward.score(rm, params, tokens_B2T.reshape(-1, t), mask_B2T.reshape(-1, t)).reshape(-1, 2)
        return losses.preference(scores), {"accuracy": jnp.mean(scores[:, 0] > scores[:, 1])}

    orders = [data.epochs(count, p.batch, run.seeds(f"proxy order {seed}")) for seed in range(p.seeds)]

    def batch_at(step: int):
        index = np.stack([order(step) for order in orders])
        return rows.tokens[index], rows.mask[index]

    steps = p.epochs * (count // p.batch)
    optimizer = dataclasses.replace(p.optimizer, lr=p.optimizer.lr * 16 / shape.width)
    fresh = lambda: jax.vmap(partial(models.init, rm))(jax.random.split(run.key("proxies"), p.seeds))  # noqa: E731
    params = train(
        fresh, loss, batch_at, steps, optimizer, run.mesh, Checkpoints(out), Log(out, f"proxy {name}", steps), True
    )  # fmt: skip
    save_params(out / "params", params)
    held = data.read_comparisons(run.path("comparisons") / "dataset", "validation")
    flat = (held.tokens.reshape(-1, held.tokens.shape[-1]), held.mask.reshape(-1, held.mask.shape[-1]))
    raw = [reward.score_all(rm, member(params, m), *flat, e.bon.chunk).reshape(-1, 2) for m in range(p.seeds)]
    write_npz(out / "validation.npz", scores=np.stack(raw), gold=held.gold, prompt=held.prompt)
    info = {"params": models.count(member(params, 0)), "comparisons": count, "seeds": p.seeds,
            "validation_loss": [float(losses.preference(jnp.asarray(s))) for s in raw],
            "validation_accuracy": [metrics.accuracy(s) for s in raw],
            }  # fmt: skip
    write_json(out / "info.json", info)


def member(tree: Any, m: int) -> Any:
    """Member m of a tree with a leading axis of members."""
    return jax.tree.map(lambda x: x[m], tree)


def best_of_n(run: Run, out: Path, shape: config.Model, name: str) -> None:
    """Score the pool with every seed of one proxy, calibrate, and estimate best-of-n at every n."""
    e, rm, seeds = run.experiment, run.rm(shape), run.experiment.proxies.seeds
    params = run.load(f"proxies/{name}", rm, seeds)
    info = read_json(run.path(f"proxies/{name}") / "info.json")
    pool, gold_calibration = run.path("samples"), run.gold_calibration()
    prompts = read_npz(pool / "prompts.npz")
    chunk = min(e.bon.chunk, e.bon.draws)
    score = partial(reward.score_n, rm, chunk=chunk)
    every_seed = jax.jit(lambda p, *rest: jax.lax.map(lambda one: score(one, *rest), p))

    def make(q: int) -> dict[str, np.ndarray]:
        draws = read_npz(pool / "draws" / f"{q:05d}.npz")
        args = (prompts["tokens"][q], prompts["mask"][q], draws["tokens"].astype(np.int32), draws["mask"])
        return {"proxy": np.asarray(every_seed(params, *args)), "gold": draws["gold"]}

    tables = list(
        parts(out / SCRATCH / "scores", e.bon.prompts, make, Log(out, f"bon {name}", e.bon.prompts, "prompt"))
    )
    gold_QN = gold_calibration(np.stack([t["gold"] for t in tables]).astype(np.float64))
    held = read_npz(run.path(f"proxies/{name}") / "validation.npz")
    ns = bon.grid(e.bon.max_n, e.bon.points)
    curves, calibrations, shown = [], [], []
    for m in range(seeds):
        raw_QN = np.stack([t["proxy"][m] for t in tables])
        gap, gold_gap = (x[:, 0] - x[:, 1] for x in (held["scores"][m], gold_calibration(held["gold"])))
        calibration = reward.Calibration(float(raw_QN.mean(dtype=np.float64)), reward.soft_label_scale(gap, gold_gap))
        calibrations.append({**calibration._asdict(), "calibration_error": metrics.calibration_error(
            gap * calibration.scale, 1 / (1 + np.exp(-gold_gap)))})  # fmt: skip
        curves.append(bon.best_of_n(calibration(raw_QN.astype(np.float64)), gold_QN, ns))
        rng = run.rng(f"winners {m}")
        shown.append([[bon.winners(raw_N, int(n), rng, 1)[0] for raw_N in raw_QN] for n in ns])
    write_json(out / "calibration.json", calibrations)
    write_npz(out / "winners.npz", index=np.array(shown), n=ns)  # [M, K, Q]: one winner per n and prompt
    write_npz(out / "curve.npz", n=ns, kl=metrics.kl_bon(ns), proxy=np.stack([c[0] for c in curves]),
              gold=np.stack([c[1] for c in curves]))  # fmt: skip
    write_json(out / "info.json", info)


def optimise(run: Run, out: Path, shape: config.Model, name: str) -> None:
    """PPO against every seed of one proxy, in one vmapped program."""
    e, lm, seeds = run.experiment, run.lm(), run.experiment.proxies.seeds
    proxy_rm = run.rm(shape)
    proxies = run.load(f"proxies/{name}", proxy_rm, seeds)
    calibrations = read_json(run.path(f"bon/{name}") / "calibration.json")
    info = read_json(run.path(f"proxies/{name}") / "info.json")
    policy = run.load("sft", lm)
    critic_rm = run.rm(e.policy)
    critic = models.init(critic_rm, run.key("critic"))
    from_proxy = e.ppo.critic_init == "proxy" and shape == e.policy
    if not from_proxy:
        critic = {"trunk": policy["trunk"], "head": jax.tree.map(jnp.zeros_like, critic["head"])}
    setup = ppo.Setup(lm, critic_rm, proxy_rm, run.gold_rm(), e.ppo, e.world.response, EOS)
    train_prompts = run.world.prompts(run.rng("ppo prompts"), e.ppo.prompts, "ppo")
    read_prompts = read_npz(run.path("samples") / "prompts.npz")
    put = partial(jax.tree.map, jnp.asarray)
    frozen = ppo.Frozen(
        policy, run.load("gold", run.gold_rm()), put(run.gold_calibration()), put(tuple(train_prompts)),
        put((read_prompts["tokens"], read_prompts["mask"])),
    )  # fmt: skip
    column = lambda key: jnp.asarray([c[key] for c in calibrations], jnp.float32)  # noqa: E731
    keys = jax.vmap(lambda m: jax.random.fold_in(run.key("ppo"), m))(jnp.arange(seeds))
    members = ppo.Member(
        proxies, reward.Calibration(column("shift"), column("scale")), keys, jnp.full(seeds, e.ppo.kl_coef)
    )
    if from_proxy:  # in the calibrated units of the reward
        head, scale = proxies["head"], column("scale")
        shifted = (head["bias"] - column("shift")[:, None]) * scale[:, None]
        critics = {
            "trunk": proxies["trunk"],
            "head": {"kernel": head["kernel"] * scale[:, None, None], "bias": shifted},
        }
    else:
        critics = jax.tree.map(lambda x: jnp.repeat(x[None], seeds, axis=0), critic)
    log = Log(out, f"ppo {name}", len(setup.targets), "read")
    history, states = ppo.train_ppo(setup, frozen, members, critics, run.mesh, Checkpoints(out), log)
    save_params(out / "params", states.policy.params)
    reads, last = history["read"], history["last"]
    fresh = np.concatenate([np.ones((1, seeds), bool), np.diff(history["iteration"], axis=0) > 0])
    write_npz(out / "curve.npz", step=history["iteration"], fresh=fresh, **reads)
    # The optimiser's KL efficiency: proxy gain over best-of-n's at the same KL, where best-of-n reaches it.
    curve = read_npz(run.path(f"bon/{name}") / "curve.npz")
    kl, gain = reads["kl"].mean(-1), reads["proxy"].mean(-1)
    same = np.stack(
        [np.interp(kl[:, m], curve["kl"], curve["proxy"][m].mean(-1), right=np.nan) for m in range(seeds)], 1
    )
    efficiency = np.where(same > 0.05, gain / np.where(same > 0.05, same, 1), np.nan)
    rows = []
    for m in range(seeds):
        for k in np.flatnonzero(fresh[:, m]):
            row = {"seed": m, "step": int(history["iteration"][k, m])}
            row |= {n: float(v[k, m].mean()) for n, v in reads.items() if n not in ("tokens", "mask")}
            rows.append(
                row
                | {"kl_efficiency": float(efficiency[k, m])}
                | {f"train_{n}": float(v[k, m]) for n, v in last.items()}
            )
    write_csv(out / "reads.csv", list(rows[0]), rows)
    write_json(out / "info.json", info)


def load_curves(run: Run) -> list[Curve]:
    """Every curve of the run with its scores per prompt, each prompt centred on the initial policy's mean there.

    Averages over prompts are what they were (calibration centred them), but a prompt's own baseline is no longer
    counted as noise: at n = 1 nothing is uncertain, and every bootstrap draw passes through 0 there.
    """
    policy_params = read_json(run.path("sft") / "info.json")["params"]["non_embedding"]
    out = []
    for name in run.stages:
        if not name.startswith(("bon/", "ppo/")):
            continue
        info, curve = read_json(run.path(name) / "info.json"), read_npz(run.path(name) / "curve.npz")
        pool = read_npz(run.path(name.replace("ppo/", "bon/")) / "curve.npz")  # its n = 1 is the pool's mean per prompt
        meta = {"rm_params": info["params"]["non_embedding"], "rm_comparisons": info["comparisons"]}
        meta |= {"policy_params": policy_params}
        for m in range(info["seeds"]):
            base = {n: pool[n][m, :1] - pool[n][m, :1].mean() for n in ("proxy", "gold")}
            if name.startswith("bon/"):
                tables = (curve[n][m] - base[n] for n in ("proxy", "gold"))
                out.append(from_prompts("bon", curve["n"], curve["kl"], *tables, **meta, seed=m))
            else:
                keep = curve["fresh"][:, m]
                tables = (curve[n][keep, m].astype(np.float64) - base[n] for n in ("proxy", "gold"))
                kl = curve["kl"][keep, m].mean(-1, dtype=np.float64)
                meta["kl_coef"] = run.experiment.ppo.kl_coef
                out.append(from_prompts("ppo", curve["step"][keep, m], kl, *tables, **meta, seed=m))
    return out


def fits(run: Run, out: Path) -> None:
    """curves.csv, coefficients.json and gold.json (gold against the annotator, along the optimisation paths too)."""
    f = run.experiment.fits
    curves = load_curves(run)
    write_csv(out / "curves.csv", COLUMNS, [row for curve in curves for row in to_rows(curve)])
    write_json(out / "coefficients.json", fit.summarise(curves, f.bootstrap, f.level, f.min_d_ppo))
    write_json(out / "gold.json", audit.audit(run))
