"""What the policies write: texts chosen by best-of-n and sampled along PPO, at points of the curves."""

import difflib
import html
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rmo.analysis.curve_id import CurveId
from rmo.artifacts.run_files import RunFiles
from rmo.artifacts.stages import Optimised, Policy, Samples, Scores
from rmo.checkpoints.tokenizers import decode, load_tokenizer
from rmo.methods.method import Method
from rmo.report.figures.style import size
from rmo.report.page.interactive import Point, point_key
from rmo.report.page.tables import table
from rmo.runtime.types import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def policy_tokenizer(run: RunFiles) -> "PreTrainedTokenizerFast":
    """Of the main policy."""
    return tokenizer_at(Policy(run.where["sft"]).tokenizer)


@lru_cache(maxsize=8)
def tokenizer_at(path: Path) -> "PreTrainedTokenizerFast":
    return load_tokenizer(path)


class Texts:
    """Responses at the points of one stage's curves."""

    def __init__(self, run: RunFiles, optimised: Optimised):
        self.record = optimised.record
        self.samples = Samples(run.where[Scores(run.where[optimised.scores]).samples])
        self.tokenizer = policy_tokenizer(run)
        self.draws = lru_cache(maxsize=4)(self.samples.draws)  # points of a curve share a prompt's

    @property
    def known(self) -> bool:
        return self.record.draw is not None or self.record.tokens is not None

    def at(self, m: int, k: int, q: int) -> str:
        """One response of member m's k-th point to prompt q."""
        record = self.record
        if record.draw is not None:
            draws, i = self.draws(q), record.draw[m, k, q]
            return decode(self.tokenizer, draws.tokens[i], draws.mask[i])
        assert record.tokens is not None
        assert record.mask is not None
        return decode(self.tokenizer, record.tokens[m, k, q], record.mask[m, k, q])


class PointTexts(Mapping[Point, str]):
    """What stands at the points of every curve of the main policy, for one prompt, by `point_key`; read when asked for,
    since a page shows few of a large run's points."""

    def __init__(self, run: RunFiles):
        self.run = run
        self.open, self.points = lru_cache(maxsize=16)(self.texts_of), lru_cache(maxsize=64)(self.points_of)
        self.text = lru_cache(maxsize=16_384)(self.text_of)  # a curve stands in several figures
        self.stages: dict[CurveId, tuple[Optimised, int]] = {}
        main, policies = Policy(run.where["sft"]).read().params["non_embedding"], {}
        for _, _, optimised in run.optimised():
            scores = optimised.scores
            if scores not in policies:
                policies[scores] = Scores(run.where[scores]).policy_params()
            if policies[scores] == main:  # another policy has draws of its own
                self.stages |= {id: (optimised, m) for m, id in enumerate(optimised.ids())}

    def texts_of(self, optimised: Optimised) -> Texts | None:
        """Of one stage; None where no text is known."""
        texts = Texts(self.run, Optimised(optimised.directory))  # whose record is let go with it
        return texts if texts.known else None

    def points_of(self, id: CurveId) -> tuple[Texts, int, dict[float, int]] | None:
        """(the stage's texts, the member, the points by their place) of one curve; None where it has no texts."""
        if id not in self.stages:
            return None
        optimised, m = self.stages[id]
        texts = self.open(optimised)
        return texts and (texts, m, {float(texts.record.step_or_n[m, k]): k for k in texts.record.points(m)})

    def __getitem__(self, point: Point) -> str:
        return self.text(point)

    def text_of(self, point: Point) -> str:
        """Raises KeyError where nothing was written."""
        found = self.points(point[0])
        if not found:
            raise KeyError(point)
        texts, m, places = found
        return texts.at(m, places[point[1]], 0)

    def __iter__(self) -> Iterator[Point]:
        for id in self.stages:
            if found := self.points(id):
                yield from (point_key(id, at) for at in found[2])

    def __len__(self) -> int:
        return sum(1 for _ in self)


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


class Place(NamedTuple):
    """A point of a curve, as it is shown for one prompt. Scores are the prompt's: means over the draws of a read, or
    expected ones."""

    where: str
    kl: float
    proxy: float
    gold: float
    text: str


def axis_value(method: Method, x: float) -> str:
    """A place of a method's own axis in words: n = 8, iteration 20."""
    mark = " =" if len(method.axis) == 1 else ""
    return f"{method.axis}{mark} {x:,.0f}" if x == int(x) else f"{method.axis}{mark} {x:.3g}"


def along(method: Method, texts: Texts, prompts: int) -> Iterator[tuple[int, list[Place]]]:
    """(prompt, three places of the curve) of a stage's first member."""
    record = texts.record
    points = record.points(0)
    picks = {where: points[k] for where, k in places(record.gold[0, points].mean(-1)).items()}
    for q in range(prompts):
        found = []
        for where, k in picks.items():
            at = f"{where}, {axis_value(method, record.step_or_n[0, k])}"
            scores = float(record.proxy[0, k, q]), float(record.gold[0, k, q])
            found.append(Place(at, float(record.kl[0, k]), *scores, texts.at(0, k, q)))
        yield q, found


def main_stages(run: RunFiles, sweep: str) -> dict[int, list[tuple[Method, Texts]]]:
    """For every RM size of a sweep, the stage of each method that optimises against its first RM as the method stands,
    from the main policy."""
    main, out = Policy(run.where["sft"]).read().params["non_embedding"], {}
    for method, _, optimised in run.optimised():
        scores, first = Scores(run.where[optimised.scores]), optimised.arms()[0]
        plain = first.reward == 0 and not first.settings
        stages = out.setdefault(scores.params(), [])
        if plain and scores.sweep == sweep and scores.policy_params() == main and method not in dict(stages):
            texts = Texts(run, optimised)
            stages += [(method, texts)] if texts.known else []
    return {params: stages for params, stages in out.items() if stages}


NOTE = (
    "<p class=note>One text each, drawn, not picked, by the first seed, at places of its own curve. Marked is what "
    "the text to its left has not. The scores beside it are its prompt's: expected ones, over all sets of n draws, "
    "or the mean over the draws of a read. One prompt's scores say little: only averages over prompts are clean.</p>"
)


def section(run: RunFiles, prompts_shown: int = 3) -> str:
    """Texts side by side, for the smallest and the largest proxy of the main sweep; words that changed are marked."""
    stages = main_stages(run, run.experiment["proxies"]["sweeps"][0]["name"])
    out = [NOTE]
    for params in sorted({min(stages), max(stages)} if stages else ()):
        out.append(f"<h3>Against the proxy of {size(params)} parameters</h3>")
        for method, texts in stages[params]:
            prompts = texts.samples.prompts
            for q, found in along(method, texts, min(prompts_shown, len(prompts.tokens))):
                prompt = html.escape(decode(texts.tokenizer, prompts.tokens[q], prompts.mask[q]))
                out.append(f"<p class=prompt>{method.short}: {prompt}</p><div class=texts>{cells(found)}</div>")
    return "".join(out)


def cells(found: list[Place]) -> str:
    """The texts side by side."""
    out, before = [], found[0].text
    for place in found:
        numbers = f"KL {place.kl:.3g}, proxy {place.proxy:.2f}, gold {place.gold:.2f}"
        text = words(before, place.text)
        out.append(f"<div><b>{place.where}</b><span class=note>{numbers}</span>{text}</div>")
        before = place.text
    return "".join(out)


def table_2(nested: list[Row], run: RunFiles, prompt: int = 0) -> str:
    """The paper's Table 2: one prompt, the best of the first n draws at growing n, with both scores."""
    sizes = sorted({row["rm_params"] for row in nested})
    second = sizes[min(1, len(sizes) - 1)]
    wanted = (second, prompt, nested[0]["policy_params"])
    chosen = [row for row in nested if (row["rm_params"], row["prompt"], row["policy_params"]) == wanted]
    tokenizer, samples = policy_tokenizer(run), Samples(run.where["samples"])
    prompts, draws = samples.prompts, samples.draws(prompt)
    rows = []
    for row in chosen:
        text = decode(tokenizer, draws.tokens[row["draw"]], draws.mask[row["draw"]])
        rows.append([row["n"], row["proxy"], row["gold"], text])
    prompt_text = html.escape(decode(tokenizer, prompts.tokens[prompt], prompts.mask[prompt]))
    note = (
        f"<p class=note>Prompt: <code>{prompt_text}</code>. Proxy of {size(second)} parameters, its first seed. The "
        "paper's own (1.2B policy, 12M proxy): proxy -0.19 at n = 1, 0.23 at 10, 0.90 at 1,000, 0.95 at 30,000; gold "
        "-0.52, 0.48, -0.34, 0.55. One prompt's gold is not clean, only averages are.</p>"
    )
    return note + table(["n", "proxy", "gold", "response"], rows, text=(3,))
