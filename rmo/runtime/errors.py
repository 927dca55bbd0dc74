"""What to tell people when something goes wrong, in one line: where, the nearest name, what takes less."""

import builtins
import dataclasses
import difflib
import errno
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, get_origin
from urllib.parse import unquote

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class RunError(RuntimeError):
    """What is wrong with a file of the run and what to do about it, in one line."""


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


def kind(annotation: object) -> str:
    """A field's type, for people."""
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def field(owner: "type[DataclassInstance]", name: str) -> str:
    """`kl_max (float, default 32.0)`."""
    found = next(f for f in dataclasses.fields(owner) if f.name == name)
    if found.default is dataclasses.MISSING:
        return f"{name} ({kind(found.type)})"
    return f"{name} ({kind(found.type)}, default {found.default!r})"


def options(owner: object, prefix: str = "--") -> Iterator[tuple[str, str]]:
    """(option, its type and value) of every field of nested dataclasses, named as on the command line; what has no
    value is no option, but given without a name."""
    if not dataclasses.is_dataclass(owner):
        return
    for f in dataclasses.fields(owner):
        if not hasattr(owner, f.name):
            continue
        value, name = getattr(owner, f.name), prefix + f.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from options(value, prefix if f.name == "experiment" else f"{name}.")
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for i, entry in enumerate(value):
                yield from options(entry, f"{name}.{i}.")
        else:
            yield name, f"{kind(f.type)}, now {value!r}"


def alike(a: str, b: str) -> float:
    """How alike two words are spelled, 0 to 1."""
    return difflib.SequenceMatcher(None, a, b).ratio()


def last_part(option: str) -> str:
    """`lr` of `--ppo.lr`."""
    return option.split(".")[-1].lstrip("-")


def option(word: str, owner: object) -> str:
    """`; perhaps --ppo.kl-max (float, now 32.0)`: the option nearest to one that does not exist, of a dataclass or a
    value of one. Its last part counts on its own too: --ppo.lr is --ppo.policy-optimizer.lr."""
    word = word.replace("_", "-")
    best, rate, shown = "", 0.0, ""
    for name, about in options(owner):
        likeness = alike(word, name) + alike(last_part(word), last_part(name))
        if (likeness, name) > (rate, best):
            best, rate, shown = name, likeness, about
    return f"; perhaps {best} ({shown})" if rate > 1.2 else ""


def in_file(path: Path, error: BaseException, types: Mapping[str, object]) -> str:
    """`file:line: what is wrong` of an error that running a Python file raised, with the nearest name or field.

    Args:
      types: by name, the dataclasses whose fields the file gives.
    """
    if isinstance(error, SyntaxError):
        file = path if same_file(error.filename, path) else error.filename
        return f"{file}:{error.lineno}: SyntaxError: {error.msg}: {(error.text or '').strip()}"
    frames = traceback.walk_tb(error.__traceback__)
    mine = [(frame, line) for frame, line in frames if same_file(frame.f_code.co_filename, path)]
    where = f"{path}:{mine[-1][1]}" if mine else str(path)
    if isinstance(error, SystemExit):
        return f"{where}: it ends the process (exit code {error.code}): a config file only defines experiment()"
    said = said_by(error)
    keyword = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", said)
    if keyword and (line := no_such_field(types.get(keyword[1]), keyword[2])):
        return f"{where}: {line}"
    absent = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", said)
    if absent and absent[2] in sys.modules:
        return f"{where}: {absent[2]} has no {absent[1]}{nearest(absent[1], dir(sys.modules[absent[2]]))}"
    near = ""
    if isinstance(error, NameError) and mine:
        near = nearest(error.name or "", [*mine[-1][0].f_locals, *mine[-1][0].f_globals, *dir(builtins)])
    elif isinstance(error, AttributeError) and error.name:
        near = nearest(error.name, dir(error.obj))
    return f"{where}: {type(error).__name__}{': ' * bool(said)}{said}{near}"


def said_by(error: BaseException) -> str:
    """An error's message; empty where the error itself fails to say it."""
    try:
        return str(error)
    except Exception:
        return ""


def shown(value: object) -> str:
    """A value as Python writes it, cut to what a line can hold; its type where it cannot be written."""
    try:
        text = repr(value)
    except (Exception, RecursionError):  # also an int of more digits than Python will write
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 120 else f"{text[:100]}... ({type(value).__name__})"


def raised_in(path: Path, error: BaseException) -> bool:
    """Whether an error came out of a Python file's own code."""
    return any(same_file(frame.f_code.co_filename, path) for frame, _ in traceback.walk_tb(error.__traceback__))


def same_file(name: str | None, path: Path) -> bool:
    return name is not None and Path(name).resolve() == path.resolve()


def no_such_field(owner: object, name: str) -> str:
    """`PPO has no field kl_maximum; perhaps kl_max (float, default 32.0)`; empty where `owner` is no dataclass."""
    if not (isinstance(owner, type) and dataclasses.is_dataclass(owner)):
        return ""
    names = [f.name for f in dataclasses.fields(owner)]
    close = difflib.get_close_matches(name, names, 1)
    perhaps = f"perhaps {field(owner, close[0])}" if close else f"it has {', '.join(names)}"
    return f"{owner.__name__} has no field {name}; {perhaps}"


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: of the host, or of a device (XLA says so in words; others exhaust other resources)."""
    text = str(error)
    return isinstance(error, MemoryError) or ("RESOURCE_EXHAUSTED" in text and bool(re.search("memory|allocat", text)))


def memory(what: str, error: BaseException, advice: str) -> str:
    """One line: the stage or command that ran out of memory, how much it asked for, and `advice`, which may be empty:
    what takes less."""
    asked = re.search(r"(?:allocat\w+|request for|Used) ([\d.]+ ?(?:[KMGTP]i?B?|bytes))", str(error))
    line = f"{what} ran out of memory"
    if asked:
        line += f" (asked for {asked[1]})"
    return f"{line}: {advice}" if advice else line


# What to do about an error of the system's.
ADVICE = {
    errno.ENOSPC: "free some space, the same command continues",
    errno.EDQUOT: "free some of the quota, the same command continues",
    errno.EACCES: "give this user the right to it, the same command continues",
    errno.EPERM: "give this user the right to it, the same command continues",
    errno.ENOTEMPTY: "something was written there meanwhile, the same command continues",
    errno.EROFS: "give a place that can be written to",
    errno.EISDIR: "a directory stands where a file belongs, remove it and give the same command again",
}


REFUSED = "see that this account may read and write there, the same command continues"  # where a service refuses
OBJECT = re.compile(r"\bb/([\w.-]+)/o(?:/(\S+))?")  # a bucket and an object, as Google's service says them


def of_system(error: OSError) -> str:
    """An error of the system's in one line: what is wrong, with which file, and what to do where that is known. What a
    bucket's service refuses has no number, and its address is said as users give it."""
    advice, text = ADVICE.get(error.errno or 0, ""), str(error)
    if error.errno is None and OBJECT.search(text):
        advice, text = REFUSED, OBJECT.sub(lambda m: f"gs://{m[1]}/{unquote(m[2] or '')}", " ".join(text.split()))
    return f"{text}: {advice}" if advice else text


def overlooked() -> str:
    """What to install where JAX runs on the CPU of a machine that has more; empty where nothing says so."""
    if "cpu" in os.environ.get("JAX_PLATFORMS", ""):
        return ""
    if any(name in os.environ for name in ("TPU_NAME", "TPU_WORKER_ID", "TPU_ACCELERATOR_TYPE")):
        device, extra = "a TPU", "tpu"
    elif shutil.which("nvidia-smi"):
        device, extra = "an NVIDIA GPU", "cuda"
    else:
        return ""
    return (
        f"this machine has {device}, but JAX sees only the CPU: EXTRAS=dev,{extra} launch/local.sh ... installs "
        "what it needs (JAX_PLATFORMS=cpu says that the CPU is meant)"
    )


def without_echoes() -> None:
    """Have only the error itself be said where a checkpoint cannot be loaded: C++ threads that read its other parts
    report to a loop that orbax has closed by then, and Python would print a traceback for each."""
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = unless_echo


def unless_echo(found: "sys.UnraisableHookArgs") -> None:
    """What Python prints of errors that nobody can catch, less the echoes."""
    if not (isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(found)
