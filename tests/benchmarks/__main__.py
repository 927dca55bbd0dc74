"""rmo beside what one would otherwise run, on this machine: the same work, the same weights, taking turns.

    launch/local.sh python -m tests.benchmarks                  # all of them; an hour or two
    launch/local.sh python -m tests.benchmarks sample bon       # some
    launch/local.sh python -m tests.benchmarks sample --only "batch 8" --pairs 7 --out benchmarks.json

Each side is a process at the number of threads that suits it best, warmed up; what both compute is compared first;
then they take turns A B A B. Times are medians, a ratio above 1 means that rmo is faster. The peers' packages are
installed into .venv-peers on first use.
"""

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks import race

NAMES = ("sample", "rm", "ppo", "score", "bon", "fit", "growth", "end_to_end")


def machine() -> dict[str, float]:
    """The better of both frameworks' rates, on every core."""
    parts = [race.alone("machine", {}, side)["parts"] for side in ("ours", "peer")]
    return {name: max(p[name] for p in parts) for name in parts[0]}


def one(name: str, case: dict[str, Any], best: dict[str, float], pairs: int) -> dict[str, Any]:
    """A case's row, with the share of the machine's best rates that rmo reaches where the case says what it does."""
    row = {"benchmark": name, "case": case["name"]}
    row |= {"ours": race.alone(name, case, runs=pairs)} if case.get("alone") else race.race(name, case, pairs)
    seconds = row["ours"]["seconds"]
    if "flops" in case:
        row["share_of_flops"] = case["flops"] / seconds / best["flops"]
    if "bytes" in case:
        row["share_of_bytes"] = case["bytes"] / seconds / best["bytes_per_second"]
    return row


def line(row: dict[str, Any]) -> str:
    def side(name: str) -> str:
        if name not in row:
            return "–"
        s = row[name]
        part = f" for {row['share']:.0%} of it" if name == "peer" and row.get("share", 1) < 1 else ""
        text = f"{s['seconds']:.3g} s{part} ({s['range'][0]:.3g} to {s['range'][1]:.3g}), {s['peak_bytes'] / 2**30:.1f} GiB"
        return text + (f", {s['devices']} devices" if s["devices"] > 1 else f", {s['threads']} threads")

    ratio = (
        f"{row['ratio']:.3g} ({row['ratio_range'][0]:.3g} to {row['ratio_range'][1]:.3g})" if "ratio" in row else "–"
    )
    shares = [f"{row[k]:.0%} of its {k[9:].upper()}" for k in ("share_of_flops", "share_of_bytes") if k in row]
    cells = [row["benchmark"], row["case"], side("ours"), side("peer"), ratio, ", ".join(shares) or "–"]
    return f"| {' | '.join(cells)} | {row['ours']['first']:.1f} s |"


HEAD = (
    "| benchmark | case | rmo: median (range), peak memory | peer | ratio (range of pairs) | of the machine's best"
    " | rmo's first call, with compilation |\n|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *NAMES], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--only", default="", help="only cases with this in their name")
    parser.add_argument("--pairs", type=int, default=race.PAIRS)
    parser.add_argument("--out", type=Path, help="where the numbers go as JSON")
    options = parser.parse_args()
    best: dict[str, float] = {}
    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        if options.out:
            options.out.write_text(json.dumps({"machine": best, "rows": rows}, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as top:
        for name in options.names or NAMES:
            module = importlib.import_module(f"tests.benchmarks.{name}")
            if name == "end_to_end":
                for row in module.rows(options.only, Path(top)):
                    keep(row)
                continue
            if not best:
                best = machine()
                rates = f"{best['flops'] / 1e9:.0f} GFLOP/s, {best['bytes_per_second'] / 1e9:.0f} GB/s"
                print(f"this machine: {rates}\n\n{HEAD}")
            for case in module.cases(Path(top)):
                if options.only in case["name"]:
                    keep(one(name, case, best, options.pairs))
                    print(line(rows[-1]), flush=True)
    if not rows:
        sys.exit(f"--only {options.only}: no case has that in its name")


if __name__ == "__main__":
    main()
