"""`rmo watch`: a run's curves so far, drawn in the terminal from its files alone, and what is being made."""

import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from rmo.analysis.curve import Curve, common_d, regrid
from rmo.analysis.curve_id import CurveId
from rmo.artifacts.run_files import BEFORE_METHODS, GATHERERS, RunFiles
from rmo.artifacts.stages import Optimised
from rmo.config.names import GOLD_SCORES
from rmo.methods import method as methods
from rmo.methods.bench import Record
from rmo.methods.method import Method
from rmo.runtime import errors
from rmo.runtime.files import Row, RunError, remote
from rmo.tracking import status

COLORS = (33, 208, 70, 196, 135, 37, 205, 142, 94, 245)  # of 256
SECONDS = 5.0  # between two looks
_finished: dict[Path, Curve] = {}  # their files do not change


def stages(root: Path) -> dict[str, str]:
    """{stage: its path}: what was asked for last, else what was published last, else every directory of a stage.

    Of the last, those of the sweep `main` come first.

    Raises:
      RunError: there are none.
    """
    if known := RunFiles(root).known_stages():
        return known
    kinds = (*BEFORE_METHODS, *methods.names(), *GATHERERS)
    there = [path for kind in kinds for pattern in (f"{kind}-*", f"{kind}/*-*") for path in root.glob(pattern)]
    made = [str(path)[len(str(root)) + 1 :] for path in there if re.search(r"-[0-9a-f]{10}$", path.name)]
    if not made:
        if worlds := sorted(path.name for path in root.glob("world-*")):
            raise RunError(f"{root} holds a run in each of several worlds: give one, e.g. {root / worlds[0]}")
        near = "" if root.exists() or remote(root) else errors.instead(root)
        raise RunError(f"{root} holds no stages: give a directory that `rmo run` fills, e.g. runs/tiny{near}")

    def main_first(path: str) -> tuple[bool, str]:
        return not re.search(r"/w[^-]*-main-", path), path

    return {path[:-11]: path for path in sorted(made, key=main_first)}


def method_of(stage: str) -> Method | None:
    """The method whose stage this is; None of other stages."""
    known = {method.name: method for method in methods.every()}
    return known.get(stage.split("/")[0])


def chosen(names: list[str], only: tuple[str, ...]) -> list[str]:
    """Which curves are drawn: of stages with one of `only` in their names; else those of each method's first sweep.

    Raises:
      RunError: `only` picks nothing.
    """
    with_curves = [name for name in names if method_of(name)]
    if only:
        found = [name for name in with_curves if any(want in name for want in only)]
        if not found:
            there = ", ".join(with_curves)
            raise RunError(f"--only {' '.join(only)}: no stage with a curve has that in its name; there are {there}")
        return found
    out = []
    for method in methods.names():
        mine = [name for name in with_curves if name.startswith(method + "/") and rm(name) != GOLD_SCORES]
        out += [name for name in mine if rm(name).partition("-")[2] == rm(mine[0]).partition("-")[2]]
    return out


def curve(directory: Path, method: Method) -> Curve | None:
    """The mean over seeds, of the first recipe and settings, of what a stage has so far; None before its first two
    points. A method that logs its points has a curve from its first read on, another one when it is done."""
    if directory in _finished:
        return _finished[directory]
    stage = Optimised(directory)
    if not stage.done and not method.logs_points:
        return None
    ids = stage.ids() if stage.has_info() else []
    like_first = [m for m, id in enumerate(ids) if id.group == ids[0].group]
    if method.logs_points:
        found = of_log(method, stage.metrics(), like_first)
    else:
        found = of_record(method, stage.record, like_first)
    if stage.done and found:
        _finished[directory] = found
    return found


def of_record(method: Method, record: Record, members: list[int]) -> Curve | None:
    """The mean of some members as one curve."""
    id, curves = CurveId(method.name), []
    for m in members:
        k = record.points(m)
        proxy, gold = record.proxy[m, k].mean(-1), record.gold[m, k].mean(-1)
        curves.append(Curve(id, record.step_or_n[m, k], record.kl[m, k], proxy, gold))
    return mean_of(id, curves)


def of_log(method: Method, reads: list[Row], members: list[int]) -> Curve | None:
    """The mean of some members as one curve, as far as all of them are; without `members`, of all that the log has."""
    if not reads:
        return None
    names = (method.axis, "kl", "proxy", "gold")
    unknown = [np.nan] * len(reads[0]["kl"])  # of a method that has no proxy
    every = {name: np.array([row.get(name, unknown) for row in reads], np.float64) for name in names}
    id, curves = CurveId(method.name), []
    for m in members or range(every["kl"].shape[1]):
        step, kl, proxy, gold = (values[:, m] for values in every.values())
        fresh = np.diff(step, prepend=-1) > 0  # a finished member is read again while the others go on
        curves.append(Curve(id, step[fresh], kl[fresh], proxy[fresh], gold[fresh]))
    return mean_of(id, curves)


def mean_of(id: CurveId, curves: list[Curve]) -> Curve | None:
    """The mean as far as all curves are; None where they are at their beginning."""
    d = common_d(curves)
    if not d.max() > 0:
        return None
    proxy, gold = (np.mean([regrid(d, c, getattr(c, name)) for c in curves], axis=0) for name in ("proxy", "gold"))
    return Curve(id, np.arange(len(d)), d**2, proxy, gold)


def picture(curves: dict[str, Curve], width: int, height: int, color: bool) -> str:
    """Gold and proxy against sqrt(KL), methods side by side, or above one another where that leaves more room. Without
    color a curve is drawn in its letter, gold in the capital."""
    import plotext

    order = list(dict.fromkeys(map(rm, curves)))
    shown = [method for method in methods.every() if any(c.method == method.name for c in curves.values())]
    beside = width >= 100 or height < 36
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.limitsize(False, False)
    plotext.plotsize(width, height)
    plotext.subplots(*(1, len(shown)) if beside else (len(shown), 1))
    for place, method in enumerate(shown, start=1):
        figure = plotext.subplot(*(1, place) if beside else (place, 1))
        for name, c in curves.items():
            if c.method == method.name:
                i = order.index(rm(name))
                letter, line = chr(ord("a") + i % 26), COLORS[i % len(COLORS)]
                gold, proxy = ("braille", "dot") if color else (letter.upper(), letter)
                figure.plot(c.d.tolist(), c.gold.tolist(), marker=gold, color=line)
                if np.isfinite(c.proxy).all():
                    figure.plot(c.d.tolist(), c.proxy.tolist(), marker=proxy, color=line)
        figure.title(method.short)
    drawn = plotext.build()
    return drawn if color else plotext.uncolorize(drawn)


def rm(name: str) -> str:
    """The RM of a curve's stage: `w8x1-main` of `bon/w8x1-main`."""
    return name.partition("/")[2]


def legend(curves: dict[str, Curve], width: int, color: bool) -> list[str]:
    """A line per RM: its mark and, per method, gold's highest point, where the curve has come to, and its proxy."""
    rms = list(dict.fromkeys(map(rm, curves)))
    shown = [method for method in methods.every() if any(c.method == method.name for c in curves.values())]
    longest = max(map(len, rms))
    head = "".join(f"  {method.short + ' top':>14}{'now at KL':>14}{'proxy':>7}" for method in shown)
    marks = "gold in lines, proxy in dots" if color else "gold in capitals, proxy in small letters"
    out = [f"{marks}, against the root of KL"[:width], f"{'gold':{longest + 3}}{head}"[:width]]
    for i, name in enumerate(rms):
        mark = f"\x1b[38;5;{COLORS[i % len(COLORS)]}m━━\x1b[0m" if color else f"{chr(ord('A') + i % 26)} "
        line = f" {name:{longest}}"
        for method in shown:
            if c := curves.get(f"{method.name}/{name}"):
                top, now = (f"{c.gold[k]:.2f} at {c.kl[k]:.1f}" for k in (int(np.argmax(c.gold)), -1))
                said = f"{c.proxy[-1]:.2f}" if np.isfinite(c.proxy[-1]) else "none"
                line += f"  {top:>14}{now:>14}{said:>7}"
            else:
                line += " " * 37
        out.append(mark + line.rstrip()[: width - 2])
    return out


def view(root: Path, only: tuple[str, ...], width: int, height: int, color: bool) -> tuple[str, bool]:
    """(the whole view, whether the report is done)."""
    every = stages(root)
    found = status.look(root, every)
    at_work = [row for row in found if row["state"] in ("running", "stopped")]
    lines = [status.total(found, root)]
    lines += [f"{row['stage']}: {row['state']}, {status.at(row)}"[:width] for row in at_work]
    curves = curves_so_far(root, every, only)
    if curves:
        below = legend(curves, width, color)
        room = max(height - len(lines) - len(below) - 1, 12)
        lines += [picture(curves, width, room, color).rstrip("\n"), *below]
    else:
        lines.append("no curves yet: the first come with the first method")
    finished = any(row["stage"] == "report" and row["state"] == "done" for row in found)
    return "\n".join(lines), finished


def curves_so_far(root: Path, every: dict[str, str], only: tuple[str, ...]) -> dict[str, Curve]:
    """The curves that are drawn, by stage, as far as there are any."""
    out = {}
    for name in chosen(list(every), only):
        method = method_of(name)
        if method and (found := curve(root / every[name], method)):
            out[name] = found
    return out


def watch(root: Path, once: bool, only: tuple[str, ...]) -> None:
    """Draw the view again and again, until the report is done or Ctrl-C.

    Raises:
      RunError: there is nothing to watch.
    """
    terminal = sys.stdout.isatty()

    def draw() -> tuple[str, bool]:
        return view(root, only, *shutil.get_terminal_size((100, 40)), terminal)

    text, done = draw()
    if terminal and not once and not done:
        print("\x1b[?1049h", end="")  # the terminal's second screen: the first stays as it was
        try:
            while not done:
                # Home, every line over the old one, then clear what is left: no flicker.
                shown = text.splitlines()[: shutil.get_terminal_size().lines - 1]
                print("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in shown) + "\x1b[J", end="", flush=True)
                time.sleep(SECONDS)
                text, done = draw()
        except KeyboardInterrupt:
            pass
        finally:
            print("\x1b[?1049l", end="")
    print(text)
