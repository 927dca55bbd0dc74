"""What the policies write: texts chosen by best-of-n and sampled along PPO, at points of the curves."""

import difflib
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rmo.checkpoints.tokenizers import decode, load_tokenizer
from rmo.report.figures.style import size
from rmo.report.page.interactive import point_key
from rmo.report.page.tables import table
from rmo.runtime.files import read_json, read_npz


def at_points(where: dict[str, Path]) -> dict[tuple, str]:
    """What stands at the points of every curve of the main policy, for one prompt, by `point_key`."""
    tokenizer, policy = load_tokenizer(where["sft"] / "tokenizer"), read_json(where["sft"] / "info.json")
    draws, out = read_npz(where["samples"] / "draws" / "00000.npz"), {}
    for name in where:
        method = name.split("/")[0]
        if method not in ("bon", "ppo"):
            continue
        info, curve = read_json(where[name] / "info.json"), read_npz(where[name] / "curve.npz")
        if info["policy"] != policy["params"]:
            continue  # it has draws of its own
        meta = {"rm_params": info["params"]["non_embedding"], "policy_params": info["policy"]["non_embedding"]}
        for m, row in enumerate(info["members"]):
            meta |= {"rm_comparisons": row["comparisons"], **{n: row.get(n) for n in ("kl_coef", "seed", "variant")}}
            if method == "bon":
                won = zip(curve["n"], curve["winner"][m, :, 0], strict=True)
                found = [(n, draws["tokens"][i], draws["mask"][i]) for n, i in won]
            else:
                keep = np.flatnonzero(curve["fresh"][:, m])
                found = [(curve["step"][k, m], curve["tokens"][k, m, 0], curve["mask"][k, m, 0]) for k in keep]
            out |= {point_key(method, meta, at): decode(tokenizer, tokens, mask) for at, tokens, mask in found}
    return out


def words(before: str, after: str) -> str:
    """`after` as HTML, with the words that `before` has not at their place marked."""
    old, new = before.split(), after.split()
    parts = []
    for kind, _, _, low, high in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        text = html.escape(" ".join(new[low:high]))
        parts += [f"<mark>{text}</mark>" if kind != "equal" else text] if text else []
    return " ".join(parts)


def places(gold_K: np.ndarray) -> dict[str, int]:
    """Points of a curve to look at: before, at and past gold's highest, or, where it has not fallen, along the way."""
    top, end = int(gold_K.argmax()), len(gold_K) - 1
    if top < end:
        return {"the initial policy": 0, "gold's peak": top, "the end, past the peak": end}
    return {"the initial policy": 0, "halfway": end // 2, "the end, where gold is highest": end}


def along(where: dict[str, Path], name: str, prompts: int, tokenizer: Any) -> Iterator[tuple[str, int, list[tuple]]]:
    """(method, prompt, [(place, KL, proxy, gold, text) at three `places`]) of a proxy's first seed; best-of-n, then
    PPO. Scores are the prompt's: expected ones, or means over the draws of a read."""
    curve = read_npz(where[f"bon/{name}"] / "curve.npz")
    picks = places(curve["gold"][0].mean(-1))
    for q in range(prompts):
        draws, found = read_npz(where["samples"] / "draws" / f"{q:05d}.npz"), []
        for place, k in picks.items():
            i = curve["winner"][0, k, q]
            text = decode(tokenizer, draws["tokens"][i], draws["mask"][i])
            at = f"{place}, n = {curve['n'][k]:,}"
            found.append((at, float(curve["kl"][k]), curve["proxy"][0, k, q], curve["gold"][0, k, q], text))
        yield "best-of-n", q, found
    if f"ppo/{name}" not in where:
        return
    run = read_npz(where[f"ppo/{name}"] / "curve.npz")
    keep = np.flatnonzero(run["fresh"][:, 0])
    picks = {place: keep[k] for place, k in places(run["gold"][keep, 0].mean(-1)).items()}
    for q in range(prompts):
        found = []
        for place, k in picks.items():
            text = decode(tokenizer, run["tokens"][k, 0, q], run["mask"][k, 0, q])
            at = f"{place}, iteration {run['step'][k, 0]:,}"
            found.append((at, float(run["kl"][k, 0].mean()), run["proxy"][k, 0, q], run["gold"][k, 0, q], text))
        yield "PPO", q, found


def section(where: dict[str, Path], main: str, read_draws: int, prompts_shown: int = 3) -> str:
    """Texts side by side, for the smallest and the largest proxy of the main sweep; words that changed are marked."""
    tokenizer = load_tokenizer(where["sft"] / "tokenizer")
    prompts = read_npz(where["samples"] / "prompts.npz")
    names = [name.removeprefix("bon/") for name in where if name.startswith("bon/") and name.endswith(f"-{main}")]
    params = {name: read_json(where[f"bon/{name}"] / "info.json")["params"]["non_embedding"] for name in names}
    names.sort(key=params.__getitem__)
    out = [
        "<p class=note>One text each, drawn, not picked, by the first seed, at places of its own curve. Marked is what "
        "the text to its left has not. The scores beside it are its prompt's: for best-of-n expected ones, over all "
        f"sets of n draws, for PPO the mean of {read_draws} draws. One prompt's scores say little: only averages over "
        "prompts are clean.</p>"
    ]
    for name in dict.fromkeys([names[0], names[-1]]):
        out.append(f"<h3>Against the proxy of {size(params[name])} parameters</h3>")
        for method, q, found in along(where, name, min(prompts_shown, len(prompts["tokens"])), tokenizer):
            prompt = html.escape(decode(tokenizer, prompts["tokens"][q], prompts["mask"][q]))
            cells, before = [], found[0][-1]
            for place, kl, proxy, gold, text in found:
                numbers = f"KL {kl:.3g}, proxy {proxy:.2f}, gold {gold:.2f}"
                cells.append(f"<div><b>{place}</b><span class=note>{numbers}</span>{words(before, text)}</div>")
                before = text
            out.append(f"<p class=prompt>{method}: {prompt}</p><div class=texts>{''.join(cells)}</div>")
    return "".join(out)


def table_2(nested: list[dict[str, Any]], where: dict[str, Path], prompt: int = 0) -> str:
    """The paper's Table 2: one prompt, the best of the first n draws at growing n, with both scores."""
    sizes = sorted({row["rm_params"] for row in nested})
    second = sizes[min(1, len(sizes) - 1)]
    policy = nested[0]["policy_params"]
    chosen = [r for r in nested if (r["rm_params"], r["prompt"], r["policy_params"]) == (second, prompt, policy)]
    tokenizer = load_tokenizer(where["sft"] / "tokenizer")
    prompts = read_npz(where["samples"] / "prompts.npz")
    draws = read_npz(where["samples"] / "draws" / f"{prompt:05d}.npz")
    rows = [
        [
            r["n"],
            r["proxy"],
            r["gold"],
            decode(tokenizer, draws["tokens"][r["draw"]], draws["mask"][r["draw"]]),
        ]
        for r in chosen
    ]
    text = html.escape(decode(tokenizer, prompts["tokens"][prompt], prompts["mask"][prompt]))
    note = f"<p class=note>Prompt: <code>{text}</code>. Proxy of {size(second)} parameters, its first seed. The "
    note += (
        "paper's own (1.2B policy, 12M proxy): proxy -0.19 at n = 1, 0.23 at 10, 0.90 at 1,000, 0.95 at 30,000; gold "
    )
    note += "-0.52, 0.48, -0.34, 0.55. One prompt's gold is not clean, only averages are.</p>"
    return note + table(["n", "proxy", "gold", "response"], rows, text=(3,))
