"""The stages. Each is a function `(run, directory)` that fills its directory from the directories before it.

Read them top to bottom: this is the whole experiment. `pipeline.plan` says how they depend on one another.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmo import config
from rmo.checkpoints import hf, saved_model, tokenizers
from rmo.config.checks import STOPPING
from rmo.experiment.run import Run, stage_name, tokenizer_of
from rmo.methods import best_of_n as bon
from rmo.methods import ppo, ppo_loop
from rmo.models import metrics, scoring, transformer
from rmo.models.sampling import sample, sample_n
from rmo.runtime import hosts
from rmo.runtime.files import SCRATCH, Checkpoints, RunError, read_json, read_npz, write_json, write_npz
from rmo.tracking.jsonl import Log, parts
from rmo.training import losses, objectives
from rmo.training.loop import Member, pick, train
from rmo.worlds import comparisons as data
from rmo.worlds import real_text, tokenization
from rmo.worlds.rm_reader import TextReader
from rmo.worlds.world import Texts

PAIRS = 8  # pairs of winners per prompt and n on which an RM is judged along the path


# The stages.


def prompts(run: Run, out: Path) -> None:
    """Real text only: prompts and demonstrations, read and tokenised with the policy's tokenizer."""
    e, c = run.experiment, run.experiment.world
    assert isinstance(c, config.Text)
    tokenizer = tokenizer_of(c.tokenizer or e.policy.checkpoint)
    if e.policy.checkpoint and not tokenization.extends(tokenizer_of(e.policy.checkpoint), tokenizer):
        raise hf.CheckpointError(f"{c.tokenizer} has other ids than the tokenizer of {e.policy.checkpoint}, the policy")
    if hosts.writer():
        info = real_text.write(c, tokenizer, e.policy.vocab or len(tokenizer), out)
        print(f"prompts: {info['prompts']:,} from {info['rows']}; {info['longer_than_prompt']:,} too long")
        if e.gold.comparisons:
            real_text.write_comparisons(e.gold.comparisons, c.tolerance, out)
    tokenizers.save_tokenizer(tokenizer, out / "tokenizer")
    # Refuse now what would stop a later stage, hours on.
    for shape in (*e.policies, e.gold.model, *e.proxies.sizes):
        if shape.checkpoint:
            run.check_checkpoint(shape)
    for purpose, size in {"read": e.bon.prompts, "comparisons": e.comparisons.prompts, "ppo": e.ppo.prompts}.items():
        run.world.prompts(run.rng(purpose), size, purpose)


def sft(run: Run, out: Path, policy: int = 0) -> None:
    """An initial policy: next-token training on response tokens of the corpus, from random weights or a checkpoint, or
    the checkpoint as it stands. All see the same texts."""
    e, lm = run.experiment, run.lm(policy)
    tokenizers.save_tokenizer(run.world.tokenizer, out / "tokenizer")
    first = run.first(lm, run.key("sft"))
    if not e.sft.texts and first.load:
        saved_model.save(out, lm, params := first.load(), out / "tokenizer")
        write_json(out / "info.json", {"params": transformer.count(params), "steps": 0, "held_out_loss": None})
        return
    texts = run.world.demonstrations(run.rng("sft"), e.sft.texts)
    held_out = run.world.demonstrations(run.rng("sft held out"), 2048, held_out=True)
    loss = objectives.sft(lm)
    steps = e.sft.epochs * (e.sft.texts // e.sft.batch)
    rows = data.epochs(e.sft.texts, e.sft.batch, run.seeds("sft order"))
    params = train(
        first, loss, lambda step: texts.rows(rows(step)), steps, e.sft.optimizer, run.mesh,
        Checkpoints(out), Log(out, stage_name("sft", policy, e), steps),
    )  # fmt: skip
    saved_model.save(out, lm, params, out / "tokenizer")
    info = {"params": transformer.count(params), "steps": steps, "held_out_loss": held_out_loss(loss, params, held_out)}
    write_json(out / "info.json", info)


def held_out_loss(loss, params: Any, texts: Texts, batch: int = 256) -> float:
    """Mean over equal batches, weighted by tokens; what does not fill a batch is filled with rows that do not count."""
    total = 0.0
    run_loss, size = jax.jit(loss), len(texts.tokens)
    for start in range(0, size, batch):
        rows = texts.rows(np.arange(start, start + batch) % size)
        real = rows._replace(mask=rows.mask & (np.arange(start, start + batch) < size)[:, None])
        total += float(run_loss(params, real)[0]) * real.mask.sum()
    return float(total / texts.mask.sum())


def samples(run: Run, out: Path, policy: int = 0) -> None:
    """[Q, N] draws of an initial policy with gold scores: one pool for every RM; gold is calibrated on the main one's.

    Every policy is read on the same prompts.
    """
    e, lm, rm = run.experiment, run.lm(policy), run.gold_rm()
    params, gold_params = run.load(stage_name("sft", policy, e), lm), run.load("gold", rm)
    prompts = run.world.prompts(run.rng("read prompts"), e.bon.prompts, "read")
    write_npz(out / "prompts.npz", tokens=prompts.tokens, mask=prompts.mask)
    chunk, reader = min(e.bon.chunk, e.bon.draws), run.reader("gold", e.gold.model)
    dtype = np.uint8 if run.world.vocab <= 256 else np.int32

    def make(q: int) -> dict[str, np.ndarray]:
        prompt, mask = jnp.asarray(prompts.tokens[q]), jnp.asarray(prompts.mask[q])
        key = jax.random.fold_in(run.key("samples"), q)
        with log.timed("sample"):
            s = sample_n(lm, params, prompt, mask, key, e.bon.draws, e.world.response, run.world.eos, chunk)
            jax.block_until_ready(s)
        with log.timed("score"):
            scores = scoring.score_n(rm, gold_params, *reader.rows(prompt, mask, s.tokens, s.mask), chunk)
            made = hosts.fetch({"tokens": s.tokens, "mask": s.mask, "logps": s.logps.sum(1), "gold": scores})
        log.did(made["mask"].sum(), 0)
        return made | {"tokens": made["tokens"].astype(dtype)}

    log = Log(out, stage_name("samples", policy, e), e.bon.prompts, "prompt")
    table = np.stack([part["gold"] for part in parts(out / "draws", e.bon.prompts, make, log)])
    if not table.std() > 0:
        raise RunError("gold gives every sample of the policy one score: is it the reward model that was meant?")
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
    draw = jax.jit(partial(sample, lm, length=e.world.response, eos=run.world.eos))
    gold_score, reader = jax.jit(partial(scoring.score, rm)), run.reader("gold", e.gold.model)

    def make(i: int) -> dict[str, np.ndarray]:
        rows = np.repeat(np.minimum(np.arange(i * per_part, (i + 1) * per_part), c.prompts - 1), draws)
        ids = i * per_part * draws + np.arange(len(rows))  # each draw has a key of its own, whatever the chunk
        keys = jax.vmap(partial(jax.random.fold_in, run.key("comparisons")))(ids)
        with log.timed("sample"):
            s = draw(policy, prompts.tokens[rows], prompts.mask[rows], keys)
            drawn = hosts.fetch((s.tokens, s.mask))
        log.did(drawn[1].sum(), 0)
        tokens, mask = (np.concatenate([x[rows], y], 1) for x, y in zip(prompts, drawn, strict=True))
        keep = min(per_part, c.prompts - i * per_part) * draws
        with log.timed("score"):
            scores = hosts.fetch(gold_score(gold_params, *reader.host(tokens, mask)))
        return {"tokens": tokens[:keep], "mask": mask[:keep], "gold": scores[:keep]}

    log = Log(out, "comparisons", count, "part")
    made = list(parts(out / SCRATCH / f"parts-{per_part}", count, make, log))
    columns = (np.concatenate([part[name] for part in made]) for name in ("tokens", "mask", "gold"))
    tokens, mask, scores = (x.reshape(-1, 2, *x.shape[1:]) for x in columns)
    prompt = np.repeat(np.arange(c.prompts, dtype=np.int32), c.pairs)
    rng = run.rng("labels")
    first_wins = data.label(rng, (scores[:, 0] - scores[:, 1]) * calibration.scale, c)
    order = np.where(first_wins[:, None], [[0, 1]], [[1, 0]])
    pick = lambda x: np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), axis=1)  # noqa: E731
    rows = data.Comparisons(pick(tokens), pick(mask), pick(scores).astype(np.float32), prompt)
    held = np.isin(prompt, rng.permutation(c.prompts)[: round(c.prompts * c.held_out)])
    split = lambda keep: data.Comparisons(*(x[keep] for x in rows))  # noqa: E731
    data.write_comparisons(out / "dataset", train=split(~held), validation=split(held))
    agree = float(np.mean(rows.gold[:, 0] > rows.gold[:, 1]))
    ties = float(np.mean(scores[:, 0] == scores[:, 1]))
    info = {"train": int((~held).sum()), "validation": int(held.sum()), "agreement_with_gold": agree, "ties": ties}
    if isinstance(reader, TextReader):
        some = rng.permutation(len(tokens))[:1000]
        info["gold_through_text"] = reader.drift(tokens[some, 0], mask[some, 0])
    write_json(out / "info.json", info)


def proxy(run: Run, out: Path, shape: config.Model, sweep: config.Sweep, name: str) -> None:
    """Proxy RMs of one shape: every recipe of the sweep with every seed, member r * seeds + s, in one vmapped program.

    A seed has the same first weights in every recipe, and draws its own comparisons and label noise. Recipes that need
    fewer steps than the longest rest at the end.
    """
    e, rm, p = run.experiment, run.rm(shape), run.experiment.proxies
    tokenizer = run.own_tokenizer(shape, out)
    reader = run.reader(f"proxies/{name}", shape)
    rows = reader.comparisons(data.read_comparisons(run.path("comparisons") / "dataset", "train"))
    members = [(recipe, seed) for recipe in sweep.recipes for seed in range(p.seeds)]
    noisy = any(recipe.dropout for recipe in sweep.recipes)

    used, steps, orders, labels = [], [], [], []
    for recipe, seed in members:
        end = len(rows.prompt) - (STOPPING if recipe.stop_early else 0)
        index = data.chosen_rows(rows.prompt[:end], recipe, run.rng(f"comparisons of seed {seed}"))
        used.append(index)
        steps.append(recipe.epochs * (len(index) // p.batch))
        orders.append(data.epochs(len(index), p.batch, run.seeds(f"proxy order {seed}")))
        flipped = run.rng(f"flipped labels {seed}").random(len(rows.prompt)) < recipe.flip
        labels.append(np.where(flipped[:, None], [[1, 0]], [[0, 1]]))

    def batch_at(step: int):
        picks = [used[m][orders[m](min(step, steps[m] - 1))] for m in range(len(members))]
        index, side = np.stack(picks), np.stack([labels[m][pick] for m, pick in enumerate(picks)])
        return rows.tokens[index[..., None], side], rows.mask[index[..., None], side]

    column = lambda get, dtype: jnp.asarray([get(recipe) for recipe, _ in members], dtype)  # noqa: E731
    settings = Member(
        jnp.asarray(steps, jnp.int32),
        jax.vmap(partial(jax.random.fold_in, run.key("dropout")))(jnp.asarray([seed for _, seed in members])),
        column(lambda r: r.weight_decay or p.optimizer.weight_decay, jnp.float32),
        column(lambda r: r.dropout, jnp.float32), column(lambda r: r.smoothing, jnp.float32),
        column(lambda r: r.stop_early, bool),
    )  # fmt: skip
    validate = None
    if any(recipe.stop_early for recipe in sweep.recipes):
        watched = rows.tokens[-STOPPING:], rows.mask[-STOPPING:]  # recipes that stop early train on none of these
        validate = lambda params: losses.preference(objectives.pair_scores(rm, params, *watched))  # noqa: E731
    keys = jax.random.split(run.key("proxies"), p.seeds)[jnp.asarray([seed for _, seed in members])]
    params = train(
        run.first(rm, keys), objectives.proxy(rm, noisy), batch_at, max(steps),
        dataclasses.replace(p.optimizer, lr=p.optimizer.lr * 16 / shape.width), run.mesh, Checkpoints(out),
        Log(out, f"proxy {name}", max(steps)), settings, validate,
    )  # fmt: skip
    saved_model.save(out, rm, params, tokenizer, len(members))
    held = reader.comparisons(data.read_comparisons(run.path("comparisons") / "dataset", "validation"))
    flat = (held.tokens.reshape(-1, held.tokens.shape[-1]), held.mask.reshape(-1, held.mask.shape[-1]))
    raw = [scoring.score_all(rm, pick(params, m), *flat, e.bon.chunk).reshape(-1, 2) for m in range(len(members))]
    write_npz(out / "validation.npz", scores=np.stack(raw), gold=held.gold, prompt=held.prompt)
    rows_out = [
        {"comparisons": recipe.comparisons, "variant": recipe.variant, "seed": seed, "steps": step,
         "validation_loss": float(losses.preference(jnp.asarray(s))), "validation_accuracy": metrics.accuracy(s)}
        for (recipe, seed), step, s in zip(members, steps, raw, strict=True)
    ]  # fmt: skip
    found = {"params": transformer.count(jax.eval_shape(pick, params, 0)), "members": rows_out}
    if isinstance(reader, TextReader):
        some = data.read_comparisons(run.path("comparisons") / "dataset", "validation")
        found["through_text"] = reader.drift(some.tokens[:1000, 0], some.mask[:1000, 0])
    write_json(out / "info.json", found)


def best_of_n(
    run: Run, out: Path, shape: config.Model, name: str, policy: int = 0, recipes: tuple[int, ...] = ()
) -> None:
    """Score one policy's pool with every member of one `proxies` stage (or of some of its recipes), calibrate, and
    estimate best-of-n at every n."""
    e, rm, seeds = run.experiment, run.rm(shape), run.experiment.proxies.seeds
    info = read_json(run.path(f"proxies/{name}") / "info.json")
    chosen = [m for m in range(len(info["members"])) if not recipes or m // seeds in recipes]
    params = pick(run.load(f"proxies/{name}", rm, len(info["members"])), np.array(chosen))
    pool, gold_calibration = run.path(stage_name("samples", policy, e)), run.gold_calibration()
    prompts = read_npz(pool / "prompts.npz")
    chunk = min(e.bon.chunk, e.bon.draws)
    score = partial(scoring.score_n, rm, chunk=chunk)
    reader = run.reader(f"proxies/{name}", shape)
    every_member = jax.jit(lambda p, *rest: jax.lax.map(lambda one: score(one, *rest), p))

    def make(q: int) -> dict[str, np.ndarray]:
        draws = read_npz(pool / "draws" / f"{q:05d}.npz")
        args = (prompts["tokens"][q], prompts["mask"][q], draws["tokens"].astype(np.int32), draws["mask"])
        with log.timed("score"):
            proxy = hosts.fetch(every_member(params, *reader.rows(*args)))
        return {"proxy": proxy, "gold": draws["gold"], "logps": draws["logps"]}

    log = Log(out, f"bon {name}", e.bon.prompts, "prompt")
    tables = list(parts(out / SCRATCH / "scores", e.bon.prompts, make, log))
    gold_QN = gold_calibration(np.stack([t["gold"] for t in tables]).astype(np.float64))
    logps_QN = np.stack([t["logps"] for t in tables])
    held = read_npz(run.path(f"proxies/{name}") / "validation.npz")
    logits, ns, few = run.gold_logits, bon.grid(e.bon.max_n, e.bon.points), bon.nested_ns(e.bon.draws)
    tight_KQN = [metrics.kl_bon_given(logps_QN, int(n)) for n in ns]
    out_members: dict[str, list[Any]] = {}
    calibrations = []
    for i, m in enumerate(chosen):
        raw_QN = np.stack([t["proxy"][i] for t in tables]).astype(np.float64)
        gap, gold_gap = (x[:, 0] - x[:, 1] for x in (held["scores"][m], gold_calibration(held["gold"])))
        scale = scoring.soft_label_scale(gap, gold_gap * logits) / logits
        shift = float(raw_QN.mean())
        if policy:  # one calibration per RM, from the main policy, so that policies can be compared
            shift = read_json(run.path(f"bon/{name}") / "calibration.json")[m]["shift"]
        calibration = scoring.Calibration(shift, scale)
        error = metrics.calibration_error(gap * scale * logits, 1 / (1 + np.exp(-gold_gap * logits)))
        calibrations.append({**calibration._asdict(), "calibration_error": error})
        proxy_QN = calibration(raw_QN)
        proxy_KQ, gold_KQ = bon.best_of_n(proxy_QN, gold_QN, ns)
        # Pairs of winners come from disjoint halves of the pool: never one draw against itself.
        rng, half = run.rng(f"winners {m}"), e.bon.draws // 2
        orders = [np.argsort(proxy_QN[:, side::2][:, :half], axis=1) for side in (0, 1)]
        draw = lambda side, n: [2 * bon.winners(o, min(int(n), half), rng, PAIRS) + side for o in orders[side]]  # noqa: B023, E731
        pairs_KQD = np.stack([np.concatenate([draw(0, n), draw(1, n)], axis=1) for n in ns])
        take = lambda table: np.stack([np.take_along_axis(table, k, axis=1) for k in pairs_KQD])  # noqa: B023, E731
        gaps = [(x[..., :PAIRS] - x[..., PAIRS:]) * logits for x in (take(proxy_QN), take(gold_QN))]
        judged = {n: x.mean(-1) for n, x in hosts.fetch(metrics.agreement(*map(jnp.asarray, gaps))).items()}
        first = np.stack([bon.nested(p_N, few) for p_N in proxy_QN], axis=1)  # [J, Q]
        member = {
            "proxy": proxy_KQ, "gold": gold_KQ, "kl_given": bon.expectation(proxy_QN, tight_KQN, ns), **judged,
            "winner": pairs_KQD[..., 0], "nested": first,
            "nested_proxy": np.take_along_axis(proxy_QN.T, first, 0),
            "nested_gold": np.take_along_axis(gold_QN.T, first, 0),
        }  # fmt: skip
        for key, value in member.items():
            out_members.setdefault(key, []).append(value)
    write_json(out / "calibration.json", calibrations)
    # [M, K, Q] each; `winner` is one draw that won at n, `nested` ([M, J, Q]) the best of the first n draws.
    write_npz(
        out / "curve.npz", n=ns, nested_n=few, kl=metrics.kl_bon(ns), **{k: np.stack(v) for k, v in out_members.items()}
    )
    policy_info = read_json(run.path(stage_name("sft", policy, e)) / "info.json")["params"]
    members = [info["members"][m] for m in chosen]
    write_json(
        out / "info.json", {"params": info["params"], "policy": policy_info, "members": members, "proxies": chosen}
    )


def optimise(
    run: Run, out: Path, shape: config.Model, name: str, against: config.Against, policy: int = 0, base: str = ""
) -> None:
    """PPO from one policy against proxies of one `proxies` stage: recipes x KL penalties x seeds in one program,
    member (r * penalties + k) * seeds + s. `base` is the best-of-n stage of the same policy and proxies."""
    e, lm, seeds = run.experiment, run.lm(policy), run.experiment.proxies.seeds
    proxy_rm, critic_rm = run.rm(shape), run.rm(e.policies[policy])
    info = read_json(run.path(f"proxies/{name}") / "info.json")
    recipes = against.recipes or tuple(range(len(info["members"]) // seeds))
    members = [(r * seeds + s, kl_coef, s) for r in recipes for kl_coef in against.kl_coefs for s in range(seeds)]
    index = np.array([m for m, _, _ in members])
    proxies = pick(run.load(f"proxies/{name}", proxy_rm, len(info["members"]), master=True), index)
    calibrations = [read_json(run.path(f"bon/{name}") / "calibration.json")[m] for m in index]
    params = run.load(stage_name("sft", policy, e), lm, master=True)
    scale_lr = against.lr_scale * e.policy.width / e.policies[policy].width
    scaled = lambda o: dataclasses.replace(o, lr=o.lr * scale_lr)  # noqa: E731
    c = dataclasses.replace(
        e.ppo, policy_optimizer=scaled(e.ppo.policy_optimizer), critic_optimizer=scaled(e.ppo.critic_optimizer)
    )
    side_by_side = jax.default_backend() != "cpu" and not ppo_loop.fills(lm.shape)
    readers = run.reader(f"proxies/{name}", shape), run.reader("gold", e.gold.model)
    alone = run.mesh.size == 1 or (jax.default_backend() != "cpu" and jax.process_count() == 1)
    if not alone and any(isinstance(r, TextReader) for r in readers):
        raise RunError("PPO against an RM that reads text needs one process, and of CPUs one device")
    setup = ppo.Setup(
        lm, critic_rm, proxy_rm, run.gold_rm(), c, e.world.response, run.world.eos, side_by_side,
        ppo_loop.fills(lm.shape), *readers,
    )  # fmt: skip
    train_prompts = run.world.prompts(run.rng("ppo prompts"), e.ppo.prompts, "ppo")
    read_prompts = read_npz(run.path("samples") / "prompts.npz")
    put = partial(jax.tree.map, jnp.asarray)
    frozen = ppo.Frozen(
        params, run.load("gold", run.gold_rm()), put(run.gold_calibration()), put(tuple(train_prompts)),
        put((read_prompts["tokens"], read_prompts["mask"])), jnp.float32(run.gold_logits),
    )  # fmt: skip
    column = lambda key: jnp.asarray([c[key] for c in calibrations], jnp.float32)  # noqa: E731
    # A seed has the same stream at every penalty and recipe: differences between them are not a difference of luck.
    keys = jax.vmap(lambda m: jax.random.fold_in(run.key("ppo"), m))(jnp.asarray([s for _, _, s in members]))
    runs = ppo.Member(
        proxies, scoring.Calibration(column("shift"), column("scale")), keys,
        jnp.asarray([kl_coef for _, kl_coef, _ in members], jnp.float32),
    )  # fmt: skip
    fits = shape.shape == e.policies[policy].shape and shape.reads == "ids"
    if e.ppo.critic_init == "proxy" and fits:  # in the calibrated units of the reward
        head, scale = proxies["head"], column("scale")
        shifted = (head["bias"] - column("shift")[:, None]) * scale[:, None]
        critics = {
            "trunk": proxies["trunk"],
            "head": {"kernel": head["kernel"] * scale[:, None, None], "bias": shifted},
        }
    else:
        shapes = jax.eval_shape(partial(transformer.init, critic_rm), run.key("critic"))["head"]
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        critic = {"trunk": params["trunk"], "head": zeros}
        critics = jax.jit(partial(jax.tree.map, lambda x: jnp.repeat(x[None], len(members), axis=0)))(critic)
    rows = [
        {**info["members"][m], "kl_coef": kl_coef,
         "variant": " ".join(filter(None, (info["members"][m]["variant"], against.variant)))}
        for m, kl_coef, _ in members
    ]  # fmt: skip
    policy_info = read_json(run.path(stage_name("sft", policy, e)) / "info.json")["params"]
    write_json(  # now: `rmo watch` tells members apart by it
        out / "info.json",
        {"params": info["params"], "policy": policy_info, "members": rows, "proxies": index.tolist(), "base": base},
    )
    log = Log(out, f"ppo {out.name.rsplit('-', 1)[0]}", setup.reads, "read")
    history, states = ppo_loop.train_ppo(setup, frozen, runs, critics, run.mesh, Checkpoints(out), log)
    saved_model.save(out, lm, states.policy.params, run.path("sft") / "tokenizer", len(members))
    reads, last = history["read"], history["last"]
    fresh = np.concatenate([np.ones((1, len(members)), bool), np.diff(history["iteration"], axis=0) > 0])
    write_npz(
        out / "curve.npz", step=history["iteration"], fresh=fresh, **reads, **{f"train_{n}": v for n, v in last.items()}
    )
