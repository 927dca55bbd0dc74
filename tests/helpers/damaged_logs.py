"""Logs that went wrong: a seeded generator of files that people might hand to `rmo fit`."""

import json
from collections.abc import Iterator

import numpy as np

NAMES = ("step", "kl", "gold", "reward", "completions/mean_length", "config.temperature")
ODD = (
    float("nan"), float("inf"), -float("inf"), 10**400, -(10**30), 1e308, "1e999", "", " ", None, True, [], {}, [1, 2],
    {"a": 1}, "tensor(0.3)", "0,5", "１２", "\x00", "1_000", "-", "0x1f", 1e-320,
)  # fmt: skip
ENDINGS = (
    "json",
    "jsonl",
    "csv",
    "tsv",
    "log",
    "txt",
    "parquet",
    "wandb",
    "events.out.tfevents.1",
    "ndjson",
    "out",
    "dat",
)
ONLY_TEXT = ("json", "jsonl", "csv", "tsv", "log", "txt")


def rows(rng: np.random.Generator) -> list[dict]:
    """A short run that is as it should be."""
    kl = np.linspace(0, rng.uniform(1, 5), int(rng.integers(1, 30))) ** 2
    return [
        {"step": 10 * i, "kl": float(x), "gold": float(x**0.5), "reward": float(x), "completions/mean_length": 80.0}
        for i, x in enumerate(kl)
    ]


def as_json_lines(table: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in table)


def as_csv(table: list[dict]) -> str:
    names = list(dict.fromkeys(name for row in table for name in row))
    lines = [",".join(names)]
    lines += [",".join(str(row.get(name, "")) for name in names) for row in table]
    return "\n".join(lines) + "\n"


def odd_cells(rng: np.random.Generator, table: list[dict]) -> list[dict]:
    """The run with some cells, or all of one column, replaced by what is no number, or hardly one."""
    name = NAMES[rng.integers(len(NAMES))]
    share = rng.choice([0.1, 0.5, 1.0])
    return [{**row, name: ODD[rng.integers(len(ODD))]} if rng.random() < share else row for row in table]


def odd_rows(rng: np.random.Generator, table: list[dict]) -> list:
    """The run with rows missing, twice, out of order, of another kind, or from another run."""
    kind = rng.integers(6)
    if kind == 0:
        return []
    if kind == 1:
        return table + [{**row, "gold": row["gold"] + 1} for row in table]
    if kind == 2:
        return [table[i] for i in rng.permutation(len(table))]
    if kind == 3:
        return [row if rng.random() < 0.5 else ODD[rng.integers(len(ODD))] for row in table]
    if kind == 4:
        return [{f"{name}\n{i}": value for name, value in row.items()} for i, row in enumerate(table)]
    return [{name: value for name, value in row.items() if rng.random() < 0.4} for row in table]


def broken_text(rng: np.random.Generator, text: str) -> bytes:
    """A text that is cut off, has a piece missing, twice or of another encoding, or ends of lines of another system."""
    data = text.encode()
    a, b = sorted(int(x) for x in rng.integers(0, len(data) + 1, 2))
    choices = (
        data[:a], data[a:], data[:a] + data[b:], data + data[a:b], data[:a] + rng.bytes(20) + data[a:],
        text.encode("utf-16"), data.replace(b"\n", b"\r\n"), data.replace(b"\n", b"\r"), b"\xef\xbb\xbf" + data,
        data.replace(b",", b";"), data.replace(b"\n", b"\n\n"), data.replace(b'"', b"'"), b"\x00" * 100 + data,
    )  # fmt: skip
    return choices[rng.integers(len(choices))]


def shapes(rng: np.random.Generator, table: list) -> str:
    """JSON of an odd shape that holds the run somewhere."""
    nested: object = table
    for _ in range(int(rng.integers(1, 12))):
        nested = {"a": nested} if rng.random() < 0.5 else [nested]
    choices = (nested, {"log_history": table}, {"log_history": None}, {"log_history": 3}, {"a": {}, "b": []}, table[0:1], 3,
               "text", None, [[]], [[1, 2], [3]], {str(i): row for i, row in enumerate(table)},
               {"kl": [1, 2, 3], "gold": [1, 2], "step": [0]}, {"kl": {"a": [1, "x", None]}})  # fmt: skip
    return json.dumps(choices[rng.integers(len(choices))])


def binary(rng: np.random.Generator) -> bytes:
    """Bytes of no meaning, perhaps behind the first ones of a known format."""
    heads = (
        b"",
        b"PAR1",
        b":W&B\xe1\xbe\x00",
        b"\x1f\x8b\x08",
        b"PK\x03\x04",
        b"\x93NUMPY",
        b"\x18\x00\x00\x00\x00\x00\x00\x00",
    )
    return heads[rng.integers(len(heads))] + rng.bytes(int(rng.integers(0, 3000)))


def printed(rng: np.random.Generator, table: list[dict]) -> str:
    """A terminal's log with braces, bars and quotes that do not close."""
    pieces = ["{'kl': 0.1, ", "}", "{" * 500, "'" * 99, " 3/10 [00:01<", "{'a': {'b': nan}}", "step:3 - kl:0.1 - gold:",
              "│ kl │ 0.1 │", "{'kl': array([1, 2])}", "kl=1 gold=2", str(table[0]), "\x1b[31m"]  # fmt: skip
    return "\n".join(pieces[i] for i in rng.integers(0, len(pieces), int(rng.integers(1, 60))))


def damaged_logs(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of `count` logs that went wrong."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        table = rows(rng)
        ending = ENDINGS[rng.integers(len(ENDINGS))]
        kind = i % 6
        if kind == 0:
            made = odd_cells(rng, table)
            ending = ONLY_TEXT[rng.integers(3)]
            content = (
                json.dumps(made) if ending == "json" else as_csv(made) if ending == "csv" else as_json_lines(made)
            ).encode()
        elif kind == 1:
            made = odd_rows(rng, table)
            ending = ("json", "jsonl")[rng.integers(2)]
            content = (json.dumps(made) if ending == "json" else as_json_lines(made)).encode()
        elif kind == 2:
            ending = ONLY_TEXT[rng.integers(len(ONLY_TEXT))]
            content = broken_text(rng, as_csv(table) if ending in ("csv", "txt") else as_json_lines(table))
        elif kind == 3:
            ending, content = "json", shapes(rng, table).encode()
        elif kind == 4:
            content = binary(rng)
        else:
            ending = ("log", "txt", "out")[rng.integers(3)]
            content = printed(rng, table).encode()
        name = ending if "tfevents" in ending else f"log{i}.{ending}"
        yield name, content
