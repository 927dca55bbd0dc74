"""What to tell people when something goes wrong, in one line: where, the nearest name, what takes less."""

import builtins
import dataclasses
import difflib
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from rmo import config


def nearest(word: str, names: Iterable[str]) -> str:
    """`; perhaps a`: the name spelled most like a word; empty where none is like it."""
    close = difflib.get_close_matches(word, list(names), 1)
    return f"; perhaps {close[0]}" if close else ""


def instead(path: Path) -> str:
    """What there is where a path is not: names spelled like it, else what the directory holds."""
    try:
        name, parent = path.name, path.parent
        while not parent.is_dir() and parent != parent.parent:
            name, parent = parent.name, parent.parent
        there = sorted(item.name for item in parent.iterdir() if not item.name.startswith("."))
    except OSError:
        return ""
    close = difflib.get_close_matches(name, there, 3)
    if close:
        return f"; perhaps {' or '.join(str(parent / item) for item in close)}"
    more = ", ..." if len(there) > 8 else ""
    return f"; {parent} holds {', '.join(there[:8])}{more}" if there else f"; {parent} is empty"


def kind(annotation: Any) -> str:
    """A field's type, for people."""
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def field(owner: type, name: str) -> str:
    """`kl_max (float, default 32.0)`."""
    found = next(f for f in dataclasses.fields(owner) if f.name == name)
    plain = found.default is not dataclasses.MISSING
    return f"{name} ({kind(found.type)}" + (f", default {found.default!r})" if plain else ")")


def options(owner: Any, prefix: str = "--") -> Iterator[tuple[str, str]]:
    """(option, its type and value) of every field of nested dataclasses, named as on the command line; what has no
    value is no option, but given without a name."""
    for f in (f for f in dataclasses.fields(owner) if hasattr(owner, f.name)):
        value, name = getattr(owner, f.name), prefix + f.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from options(value, prefix if f.name == "experiment" else f"{name}.")
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for i, entry in enumerate(value):
                yield from options(entry, f"{name}.{i}.")
        else:
            yield name, f"{kind(f.type)}, now {value!r}"


def option(word: str, owner: Any) -> str:
    """`; perhaps --ppo.kl-max (float, now 32.0)`: the option nearest to one that does not exist, of a dataclass or a
    value of one. Its last part counts on its own too: --ppo.lr is --ppo.policy-optimizer.lr."""
    alike = lambda a, b: difflib.SequenceMatcher(None, a, b).ratio()  # noqa: E731
    word, last = word.replace("_", "-"), word.replace("_", "-").split(".")[-1].lstrip("-")
    rated = [(alike(word, o) + alike(last, o.split(".")[-1].lstrip("-")), o, said) for o, said in options(owner)]
    rate, best, said = max(rated, default=(0.0, "", ""))
    return f"; perhaps {best} ({said})" if rate > 1.2 else ""


def in_file(path: Path, error: BaseException) -> str:
    """`file:line: what is wrong` of an error that running a Python file raised, with the nearest name or field."""
    same = lambda name: Path(name).resolve() == path.resolve()  # noqa: E731
    if isinstance(error, SyntaxError):
        file = path if same(error.filename) else error.filename
        return f"{file}:{error.lineno}: SyntaxError: {error.msg}: {(error.text or '').strip()}"
    mine = [(f, line) for f, line in traceback.walk_tb(error.__traceback__) if same(f.f_code.co_filename)]
    where = f"{path}:{mine[-1][1]}" if mine else str(path)
    said = f"{type(error).__name__}: {error}"
    keyword = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if keyword and dataclasses.is_dataclass(owner := getattr(config, keyword[1], None)):
        every = [f.name for f in dataclasses.fields(owner)]
        close = difflib.get_close_matches(keyword[2], every, 1)
        perhaps = f"perhaps {field(owner, close[0])}" if close else f"it has {', '.join(every)}"  # type: ignore[arg-type]
        return f"{where}: {keyword[1]} has no field {keyword[2]}; {perhaps}"
    if isinstance(error, NameError) and mine:
        names = [*mine[-1][0].f_locals, *mine[-1][0].f_globals, *dir(builtins)]
        return f"{where}: {said}{nearest(error.name or '', names)}"
    if isinstance(error, AttributeError) and error.name:
        return f"{where}: {said}{nearest(error.name, dir(error.obj))}"
    absent = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
    if absent and absent[2] in sys.modules:
        return f"{where}: {absent[2]} has no {absent[1]}{nearest(absent[1], dir(sys.modules[absent[2]]))}"
    return f"{where}: {said}"


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: of the host, or of a device (XLA says so in words; others exhaust other resources)."""
    said = str(error)
    return isinstance(error, MemoryError) or ("RESOURCE_EXHAUSTED" in said and bool(re.search("memory|allocat", said)))


def memory(stage: str, error: BaseException, advice: str = "", devices: bool = False) -> str:
    """One line: the stage that ran out of memory, which settings take less, and whether more devices would help."""
    asked = re.search(r"(?:allocat\w+|request for|Used) ([\d.]+ ?(?:[KMGTP]i?B?|bytes))", str(error))
    line = f"{stage} ran out of memory" + (f" (asked for {asked[1]})" if asked else "")
    line += f": {advice}" if advice else ""
    if devices:
        line += "; or more devices, --model-parallel N; `rmo plan CONFIG` says what each program takes"
    return line


def overlooked() -> str:
    """What to install where JAX runs on the CPU of a machine that has more; empty where nothing says so."""
    if "cpu" in os.environ.get("JAX_PLATFORMS", ""):
        return ""
    tpu = any(name in os.environ for name in ("TPU_NAME", "TPU_WORKER_ID", "TPU_ACCELERATOR_TYPE"))
    found = ("a TPU", "tpu") if tpu else ("an NVIDIA GPU", "cuda") if shutil.which("nvidia-smi") else None
    if not found:
        return ""
    return (
        f"this machine has {found[0]}, but JAX sees only the CPU: EXTRAS=dev,{found[1]} launch/local.sh ... installs "
        "what it needs (JAX_PLATFORMS=cpu says that the CPU is meant)"
    )
