"""A judge of real text: any function of Python from a prompt and a response to a number. Gold learns from it.

The counterpart of the synthetic world's annotator. It is code that the experiment's author has installed and named, and
must say the same of the same text: what it says of some texts is written down when a run begins, and compared before
it is asked again (`remember`, `recognise`).
"""

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmo import config
from rmo.runtime.files import RunError, read_json, write_json
from rmo.worlds.functions import FunctionError, function_of
from rmo.worlds.packed_text import one_line

Pair = tuple[str, str]  # prompt, response
PROBES = 32  # texts by which a judge is known again
FILE = "judge.json"


class Judge(NamedTuple):
    """A function, and the name that the config gives it."""

    name: str
    function: Callable[..., object]

    def __call__(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Its score of every pair, f64[B]; of equal pairs it is asked once.

        Raises:
          RunError: it fails, or gives something that is no finite number; says of which text.
        """
        distinct = list(dict.fromkeys(pairs))
        scores = dict(zip(distinct, self.said(distinct), strict=True))
        return np.array([scores[pair] for pair in pairs], np.float64)

    def said(self, pairs: Sequence[Pair]) -> list[float]:
        """Its scores, one by one or, where the function has another, `batch`, beside it, of all at once."""
        batch = getattr(self.function, "batch", None)
        if batch is None:
            return [self.number(self.asked(pair), pair) for pair in pairs]
        if not pairs:
            return []
        try:
            found = list(batch([prompt for prompt, _ in pairs], [response for _, response in pairs]))
        except Exception as error:
            raise RunError(f"{self.name}.batch fails: {type(error).__name__}: {one_line(error)}") from error
        if len(found) != len(pairs):
            raise RunError(f"{self.name}.batch gives {len(found)} numbers for {len(pairs)} responses: one for each")
        return [self.number(value, pair) for value, pair in zip(found, pairs, strict=True)]

    def asked(self, pair: Pair) -> object:
        try:
            return self.function(*pair)
        except Exception as error:
            raise RunError(f"{self.name} fails on {shown(pair)}: {type(error).__name__}: {one_line(error)}") from error

    def number(self, value: object, pair: Pair) -> float:
        """What it gave, as a finite number; numbers of libraries count, text does not."""
        try:
            found = float(value) if hasattr(value, "__float__") else None  # type: ignore[arg-type]
        except (TypeError, ValueError):
            found = None
        if found is None:
            raise RunError(f"{self.name} gives a {type(value).__name__} for {shown(pair)}: it must give a number")
        if not math.isfinite(found):
            raise RunError(f"{self.name} gives {found} for {shown(pair)}: it must give a finite number for every text")
        return found


def shown(pair: Pair) -> str:
    """A prompt and a response, for messages."""
    return f"prompt {pair[0][:30]!r} and response {pair[1][:30]!r}"


def judge_of(name: str) -> Judge:
    """The judge that a config names.

    Raises:
      ConfigError: there is no such function, or it does not take a prompt and a response.
    """
    try:
        function = function_of(name)
    except FunctionError as error:
        raise config.ConfigError(f"world.judge is {name!r}: {error}") from error
    try:
        inspect.signature(function).bind("prompt", "response")
    except TypeError as error:
        takes = f"{name.partition(':')[2]}{inspect.signature(function)}"
        raise config.ConfigError(
            f"world.judge is {name!r}: {takes} must take two arguments, the prompt and the response"
        ) from error
    except ValueError:  # a function of C that does not say what it takes
        pass
    return Judge(name, function)


def remember(judge: Judge, pairs: Sequence[Pair], out: Path) -> None:
    """Write down what a judge says of the first of some pairs.

    Raises:
      RunError: it gives no numbers, or others when it is asked again.
    """
    probes = list(dict.fromkeys(pairs))[:PROBES]
    scores = judge(probes)
    refuse_another(scores, judge(probes), judge, probes, "when it is asked again: a judge must not roll dice")
    write_json(out / FILE, {"judge": judge.name, "probes": probes, "scores": scores.tolist()})


def recognise(judge: Judge, directory: Path) -> Judge:
    """The same judge, if it still says what `remember` wrote down.

    Raises:
      RunError: it has changed since.
    """
    kept = read_json(directory / FILE)
    probes = [(prompt, response) for prompt, response in kept["probes"]]
    changed = "since this run began: put the old one back, or begin anew (--name another)"
    refuse_another(np.array(kept["scores"]), judge(probes), judge, probes, changed)
    return judge


def refuse_another(first: np.ndarray, second: np.ndarray, judge: Judge, pairs: Sequence[Pair], when: str) -> None:
    """RunError where two answers differ by more than another order of sums would."""
    wrong = np.flatnonzero(~np.isclose(first, second, rtol=1e-4, atol=1e-6))
    if len(wrong):
        one = int(wrong[0])
        found = f"gives {second[one]:g} for {shown(pairs[one])}, and gave {first[one]:g}"
        raise RunError(f"{judge.name} {found}: another number {when}")
