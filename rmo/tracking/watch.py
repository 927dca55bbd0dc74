"""`rmo watch`: a run's curves so far, drawn in the terminal from its files alone, and what is being made."""

import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from rmo.analysis.curve import Curve, common_d, regrid
from rmo.runtime import errors
from rmo.runtime.files import RunError, read_json, read_npz, remote
from rmo.tracking import status

PLANNED = "planned.json"  # {stage: its path} of what the last `rmo run` was asked for
KINDS = ("prompts", "sft", "gold", "samples", "comparisons", "proxies", "bon", "ppo", "fits", "report")
METHODS = {"bon": "best-of-n", "ppo": "PPO"}
COLORS = (33, 208, 70, 196, 135, 37, 205, 142, 94, 245)  # of 256
SECONDS = 5.0  # between two looks
_finished: dict[Path, Curve] = {}  # their files do not change


def stages(root: Path) -> dict[str, str]:
    """{stage: its path}: what was asked for last, what was published last, or else every directory of a stage, those of
    the sweep `main` first.

    Raises:
      RunError: there are none.
    """
    if (root / PLANNED).exists():
        return read_json(root / PLANNED)
    if (root / "stages.json").exists():
        return {row["stage"]: row["path"] for row in read_json(root / "stages.json")}
    made = [p for kind in KINDS for pattern in (f"{kind}-*", f"{kind}/*-*") for p in root.glob(pattern)]
    made = [str(p)[len(str(root)) + 1 :] for p in made if re.search(r"-[0-9a-f]{10}$", p.name)]
    if not made:
        near = "" if root.exists() or remote(root) else errors.instead(root)
        raise RunError(f"{root} holds no stages: give a directory that `rmo run` fills, e.g. runs/tiny{near}")
    return {path[:-11]: path for path in sorted(made, key=lambda path: ("-main-" not in path, path))}


def chosen(names: list[str], only: tuple[str, ...]) -> list[str]:
    """Which curves are drawn: of stages with one of `only` in their names; else those of each method's first sweep.

    Raises:
      RunError: `only` picks nothing.
    """
    if only:
        found = [name for name in names if name.startswith(("bon/", "ppo/")) and any(want in name for want in only)]
        if not found:
            curves = ", ".join(name for name in names if name.startswith(("bon/", "ppo/")))
            raise RunError(f"--only {' '.join(only)}: no stage with a curve has that in its name; there are {curves}")
        return found
    out = []
    for method in METHODS:
        mine = [name for name in names if name.startswith(method + "/")]
        out += [name for name in mine if name.partition("-")[2] == mine[0].partition("-")[2]]
    return out


def curve(directory: Path, method: str) -> Curve | None:
    """The mean over seeds (of the first recipe and KL penalty) of what a stage has so far; None before its first two
    points. Best-of-n has its curve when it is done, PPO from its first read on."""
    if directory in _finished:
        return _finished[directory]
    done = (directory / "DONE").exists()
    if method == "bon" and not done:
        return None
    like = lambda row: {n: row.get(n) for n in ("comparisons", "variant", "kl_coef")}  # noqa: E731
    info = directory / "info.json"
    members = read_json(info)["members"] if info.exists() else []
    first = [m for m, row in enumerate(members) if like(row) == like(members[0])]
    if method == "bon":
        a = read_npz(directory / "curve.npz")
        found = Curve("bon", a["n"], a["kl"], *(a[name][first].mean((0, 2)) for name in ("proxy", "gold")))
    else:
        found = climb(status.rows(directory / "metrics.jsonl"), first)
    if done and found:
        _finished[directory] = found
    return found


def climb(reads: list[dict[str, Any]], members: list[int]) -> Curve | None:
    """PPO's reads as one curve, as far as all its members are; where they are not told apart, of all."""
    if not reads:
        return None
    every = {name: np.array([row[name] for row in reads], np.float64) for name in ("iteration", "kl", "proxy", "gold")}
    curves = []
    for m in members or range(every["kl"].shape[1]):
        step, kl, proxy, gold = (values[:, m] for values in every.values())
        fresh = np.diff(step, prepend=-1) > 0  # a finished member is read again while the others go on
        curves.append(Curve("ppo", step[fresh], kl[fresh], proxy[fresh], gold[fresh]))
    d = common_d(curves)
    if not d.max() > 0:
        return None
    proxy, gold = (np.mean([regrid(d, c, getattr(c, name)) for c in curves], axis=0) for name in ("proxy", "gold"))
    return Curve("ppo", np.arange(len(d)), d**2, proxy, gold)


def picture(curves: dict[str, Curve], width: int, height: int, color: bool) -> str:
    """Gold and proxy against sqrt(KL), best-of-n beside PPO (above it, where that leaves more room). Without color a
    curve is drawn in its letter, gold in the capital."""
    import plotext

    order = list(dict.fromkeys(map(rm, curves)))
    methods = [method for method in METHODS if any(c.method == method for c in curves.values())]
    beside = width >= 100 or height < 36
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.limitsize(False, False)
    plotext.plotsize(width, height)
    plotext.subplots(*(1, len(methods)) if beside else (len(methods), 1))
    for place, method in enumerate(methods, start=1):
        figure = plotext.subplot(*(1, place) if beside else (place, 1))
        for name, c in curves.items():
            if c.method == method:
                i = order.index(rm(name))
                letter, line = chr(ord("a") + i % 26), COLORS[i % len(COLORS)]
                gold, proxy = ("braille", "dot") if color else (letter.upper(), letter)
                figure.plot(c.d.tolist(), c.gold.tolist(), marker=gold, color=line)
                figure.plot(c.d.tolist(), c.proxy.tolist(), marker=proxy, color=line)
        figure.title(METHODS[method])
    drawn = plotext.build()
    return drawn if color else plotext.uncolorize(drawn)


def rm(name: str) -> str:
    """The RM of a curve's stage: `w8x1-main` of `bon/w8x1-main`."""
    return name.partition("/")[2]


def legend(curves: dict[str, Curve], width: int, color: bool) -> list[str]:
    """A line per RM: its mark and, per method, gold's highest point, where the curve has come to, and its proxy."""
    rms = list(dict.fromkeys(map(rm, curves)))
    methods = [method for method in METHODS if any(c.method == method for c in curves.values())]
    longest = max(map(len, rms))
    head = "".join(f"  {METHODS[method] + ' top':>14}{'now at KL':>14}{'proxy':>7}" for method in methods)
    marks = "gold in lines, proxy in dots" if color else "gold in capitals, proxy in small letters"
    out = [f"{marks}, against the root of KL"[:width], f"{'gold':{longest + 3}}{head}"[:width]]
    for i, name in enumerate(rms):
        mark = f"\x1b[38;5;{COLORS[i % len(COLORS)]}m━━\x1b[0m" if color else f"{chr(ord('A') + i % 26)} "
        line = f" {name:{longest}}"
        for method in methods:
            if c := curves.get(f"{method}/{name}"):
                top, now = (f"{c.gold[k]:.2f} at {c.kl[k]:.1f}" for k in (int(np.argmax(c.gold)), -1))
                line += f"  {top:>14}{now:>14}{c.proxy[-1]:>7.2f}"
            else:
                line += " " * 37
        out.append(mark + line.rstrip()[: width - 2])
    return out


def view(root: Path, only: tuple[str, ...], width: int, height: int, color: bool) -> tuple[str, bool]:
    """(the whole view, whether the report is done)."""
    every = stages(root)
    found = status.look(root, every)
    lines = [status.total(found, root)]
    lines += [
        f"{row['stage']}: {row['state']}, {status.at(row)}"[:width]
        for row in found
        if row["state"] in ("running", "stopped")
    ]
    curves = {name: c for name in chosen(list(every), only) if (c := curve(root / every[name], name.split("/")[0]))}
    if curves:
        below = legend(curves, width, color)
        room = max(height - len(lines) - len(below) - 1, 12)
        lines += [picture(curves, width, room, color).rstrip("\n"), *below]
    else:
        lines.append("no curves yet: the first come with best-of-n")
    return "\n".join(lines), any(row["stage"] == "report" and row["state"] == "done" for row in found)


def watch(root: Path, once: bool, only: tuple[str, ...]) -> None:
    """Draw the view again and again, until the report is done or Ctrl-C.

    Raises:
      RunError: there is nothing to watch.
    """
    terminal = sys.stdout.isatty()
    draw = lambda: view(root, only, *shutil.get_terminal_size((100, 40)), terminal)  # noqa: E731
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
