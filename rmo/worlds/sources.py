"""Prompts and human comparisons from files and datasets of the common shapes; what cannot be read is named.

A source is a JSON, JSONL or Parquet file, a directory of array_record files that tfds wrote, `tfds:NAME/SPLIT`, or
`hub:OWNER/NAME[@REVISION]/FILES`, such files of a dataset of the hub (`*` stands for anything). A row is recognised
by its fields, one reader per shape (`READERS`); a new shape is a function and a line there.
"""

import json
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from rmo.runtime import errors
from rmo.runtime.files import Json, Row, RunError


class SourceError(RunError):
    """What is wrong with a source and where, in one line."""


class Malformed(ValueError):
    """Why one row cannot be used."""


class Comparison(NamedTuple):
    """A prompt and two responses as text, the preferred one first."""

    prompt: str
    chosen: str
    rejected: str


class Loaded(NamedTuple):
    """What was read, and what was not: (where, why)."""

    rows: list[Json]
    dropped: list[tuple[str, str]]

    def summary(self) -> str:
        """One line for people."""
        if not self.dropped:
            return f"{len(self.rows):,} rows"
        where, why = self.dropped[0]
        return f"{len(self.rows):,} rows; {len(self.dropped):,} rows dropped, the first {where}: {why}"


# Where rows come from.


def read(source: str | Path) -> Iterator[tuple[str, Row | Malformed]]:
    """(where, row) of every row; a line that is no JSON object comes as Malformed.

    Raises:
      SourceError: there is no such source, or it cannot be opened.
    """
    text, path = str(source), Path(source)
    if text.startswith("tfds:"):
        yield from read_tfds(text.removeprefix("tfds:"), None)
    elif text.startswith("hub:"):
        for file in fetch(text.removeprefix("hub:")):
            yield from read(file)
    elif path.is_dir():
        yield from read_tfds(text, path)
    elif not path.is_file():
        raise SourceError(
            f"{source}: no such file, directory, tfds:NAME/SPLIT or hub:OWNER/NAME/FILES{errors.instead(path)}"
        )
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            row = 0
            for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
                for one in batch.to_pylist():
                    row += 1
                    yield f"{path} row {row}", one
        except pyarrow.ArrowException as error:
            raise SourceError(f"{path}: {str(error).splitlines()[0]}") from error
    elif path.suffix in (".jsonl", ".ndjson", ".json"):
        with open(path, encoding="utf-8") as file:
            if path.suffix == ".json" and file.read(4096).lstrip().startswith("["):  # the whole file is one list
                yield from read_list(path)
                return
            file.seek(0)
            for i, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except ValueError as error:
                        row = Malformed(f"no JSON: {error}")
                    bad = not isinstance(row, dict | Malformed)
                    yield f"{path} line {i}", Malformed(f"a {type(row).__name__}, no object") if bad else row
    else:
        raise SourceError(f"{path}: use .jsonl, .json, .parquet, a directory that tfds wrote, or tfds:NAME/SPLIT")


def read_list(path: Path) -> Iterator[tuple[str, Row | Malformed]]:
    """Rows of a JSON file that holds one list of objects."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SourceError(f"{path} is not JSON: {error}") from error
    for i, row in enumerate(rows, start=1):
        yield f"{path} row {i}", row if isinstance(row, dict) else Malformed(f"a {type(row).__name__}, no object")


def fetch(name: str) -> list[Path]:
    """The files OWNER/NAME/FILES of a dataset of the hub, fetched, in order of name."""
    from huggingface_hub import snapshot_download

    owner, _, rest = name.partition("/")
    dataset, _, files = rest.partition("/")
    dataset, _, revision = dataset.partition("@")
    if not files:
        raise SourceError(f"hub:{name}: give OWNER/NAME/FILES, e.g. hub:{name}/data/*.parquet")
    try:
        repo, pattern = f"{owner}/{dataset}", [files]
        root = Path(snapshot_download(repo, repo_type="dataset", revision=revision or None, allow_patterns=pattern))
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(f"hub:{name} could not be fetched: {line}") from error
    found = sorted(path for path in root.glob(files) if path.is_file())
    if not found:
        raise SourceError(f"hub:{name}: the dataset has no such files")
    return found


def read_tfds(name: str, directory: Path | None) -> Iterator[tuple[str, Row]]:
    """Rows of a dataset that tfds knows (NAME/SPLIT), or of a directory that it wrote (all splits)."""
    import tensorflow_datasets as tfds

    try:
        if directory is not None:
            builder: Json = tfds.builder_from_directory(str(directory))
            splits = sorted(builder.info.splits)
        else:
            name, _, split = name.rpartition("/")
            builder, splits = tfds.builder(name), [split]
        sources = [(split, builder.as_data_source(split=split)) for split in splits]
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(f"{directory or 'tfds:' + name}: {line}") from error
    for split, rows in sources:
        for i in range(len(rows)):
            yield f"{directory or name} {split} row {i + 1}", plain(rows[i])


def plain(value: Json) -> Json:
    """tfds gives bytes and arrays; texts and lists are wanted."""
    if isinstance(value, dict):
        value = {name: plain(item) for name, item in value.items()}
        lists = [item for item in value.values() if isinstance(item, list)]
        # A sequence of dicts comes as a dict of sequences.
        if value and len(lists) == len(value) and len({len(item) for item in lists}) == 1:
            return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else value


# What rows mean. A reader returns the comparisons of one row.


def text_of(value: Json, name: str) -> str:
    """A text, or the last message of a dialogue."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    if not isinstance(value, str) or not value:
        raise Malformed(f"{name} is {value!r}, no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Malformed(f"{name} is no text: {error.reason}") from error
    return value


def turn(value: Json, name: str) -> str:
    """A prompt: a text, or a dialogue of one turn; several turns are not flattened into one."""
    if isinstance(value, list) and sum(isinstance(m, dict) and m.get("role") != "system" for m in value) > 1:
        raise Malformed(f"{name} has several turns: one is understood")
    return text_of(value, name)


def pair(row: Row) -> list[Comparison]:
    """{prompt, chosen, rejected}: texts, or dialogues whose last message is the response."""
    return [Comparison(turn(row["prompt"], "prompt"), *(text_of(row[name], name) for name in ("chosen", "rejected")))]


def dialogues(row: Row) -> list[Comparison]:
    """{chosen, rejected}: two whole dialogues that part at the last answer, as text (HH-RLHF) or as messages."""
    if isinstance(row["chosen"], list) and isinstance(row["rejected"], list):
        if row["chosen"][:-1] != row["rejected"][:-1]:
            raise Malformed("the dialogues do not part at their last answer")
        return [Comparison(turn(row["chosen"][:-1], "prompt"), *(text_of(row[n], n) for n in ("chosen", "rejected")))]
    mark = "\n\nAssistant:"
    chosen, rejected = text_of(row["chosen"], "chosen"), text_of(row["rejected"], "rejected")
    (prompt, found, good), (other, _, bad) = chosen.rpartition(mark), rejected.rpartition(mark)
    if not found or prompt != other:
        raise Malformed("the dialogues do not part at their last answer")
    return [Comparison(prompt + mark, text_of(good.strip(), "chosen"), text_of(bad.strip(), "rejected"))]


def summaries(row: Row) -> list[Comparison]:
    """{info: {post | article}, summaries: [{text}, {text}], choice}: TL;DR comparisons."""
    info, texts, choice = row["info"], row["summaries"], row["choice"]
    post = text_of(info.get("post") or info.get("article"), "info.post")
    if len(texts) != 2 or choice not in (0, 1):
        raise Malformed(f"{len(texts)} summaries, choice {choice!r}: two and 0 or 1 are needed")
    title = f"SUBREDDIT: r/{info['subreddit']}\nTITLE: {info.get('title') or ''}\n" if info.get("subreddit") else ""
    good, bad = (text_of(texts[i].get("text"), "summaries.text").strip() for i in (choice, 1 - choice))
    return [Comparison(f"{title}POST: {post}\nTL;DR:", good, bad)]


def scored(prompt: str, texts: list[Json], scores: list[Json]) -> list[Comparison]:
    """Every pair of responses whose scores differ, the higher first."""
    if len(texts) != len(scores):
        raise Malformed(f"{len(texts)} responses, {len(scores)} scores")
    known = []
    for text, score in zip(texts, scores, strict=True):
        try:
            number = float(score)
        except (TypeError, ValueError) as error:
            raise Malformed(f"score {score!r} is no number") from error
        known.append((text_of(text, "response"), number))
    out = []
    for (a, x), (b, y) in combinations(known, 2):
        if x != y:
            out.append(Comparison(prompt, a, b) if x > y else Comparison(prompt, b, a))
    return out


def completions(row: Row) -> list[Comparison]:
    """{instruction, completions: [{response, overall_score}]} (UltraFeedback)."""
    given = row["completions"]
    if not all(isinstance(x, dict) and "response" in x for x in given):
        raise Malformed("completions need response and overall_score")
    scores = [x.get("overall_score", x.get("score")) for x in given]
    return scored(text_of(row["instruction"], "instruction"), [x["response"] for x in given], scores)


def answers(row: Row) -> list[Comparison]:
    """{prompt | instruction, answers, gold_scores | scores}: generations labelled by a gold RM. Neighbours are paired:
    with thousands of answers all pairs would be far too many."""
    prompt = text_of(row.get("prompt") or row.get("instruction"), "prompt")
    texts, scores = row["answers"], row.get("gold_scores", row.get("scores"))
    if not isinstance(texts, list) or not isinstance(scores, list) or len(texts) != len(scores):
        raise Malformed("answers and gold_scores must be lists of one length")
    return [c for i in range(0, len(texts) - 1, 2) for c in scored(prompt, texts[i : i + 2], scores[i : i + 2])]


READERS: list[tuple[set[str], Callable[[Row], list[Comparison]]]] = [
    ({"prompt", "chosen", "rejected"}, pair),
    ({"chosen", "rejected"}, dialogues),
    ({"info", "summaries", "choice"}, summaries),
    ({"instruction", "completions"}, completions),
    ({"answers", "gold_scores"}, answers),
    ({"answers", "scores"}, answers),
]


def comparisons_of(row: Row) -> list[Comparison]:
    """The comparisons of one row; a tie gives none."""
    for fields, reader in READERS:
        if fields <= row.keys():
            try:
                return [c for c in reader(row) if c.chosen != c.rejected]
            except (AttributeError, KeyError, TypeError) as error:
                raise Malformed(f"{reader.__name__}: {type(error).__name__} {error}") from error
    known = "; ".join(", ".join(sorted(fields)) for fields, _ in READERS)
    raise Malformed(f"fields {', '.join(row)}: known are {known}")


def prompt_of(row: Row) -> str:
    """The prompt of one row: prompt, instruction, question, text, or that of its comparisons."""
    for name in ("prompt", "instruction", "question", "text"):
        if name in row:
            if name == "instruction" and row.get("input"):
                return f"{text_of(row[name], name)}\n{text_of(row['input'], 'input')}"
            return turn(row[name], name)
    found = comparisons_of(row)
    if not found:
        raise Malformed("no prompt")
    return found[0].prompt


def demonstration_of(row: Row) -> tuple[str, str]:
    """(prompt, response) of one row: response, output, completion or answer; of a comparison, the preferred one."""
    for name in ("response", "output", "completion", "answer"):
        if name in row:
            return prompt_of(row), text_of(row[name], name)
    found = comparisons_of(row)
    if not found:
        raise Malformed("no response")
    return found[0].prompt, found[0].chosen


def load(source: str | Path, reader: Callable[[Row], Json], tolerance: float = 0.01) -> Loaded:
    """Everything that `reader` makes of a source's rows; a reader may give a list.

    Raises:
      SourceError: there is no such source, it is empty, or more than `tolerance` of its rows are malformed.
    """
    rows, dropped, total = [], [], 0
    for where, row in read(source):
        total += 1
        try:
            if isinstance(row, Malformed):
                raise row
            made = reader(row)
            rows += made if isinstance(made, list) else [made]
        except Malformed as why:
            dropped.append((where, str(why)))
    if not total:
        raise SourceError(f"{source} is empty")
    if len(dropped) > tolerance * total:
        where, why = dropped[0]
        share = f"{len(dropped):,} of {total:,} rows, more than {tolerance:.0%}, cannot be used"
        raise SourceError(f"{source}: {share}; the first is {where}: {why}")
    return Loaded(rows, dropped)


def load_comparisons(source: str | Path, tolerance: float = 0.01) -> Loaded:
    """Every `Comparison` of a source; see `load`."""
    return load(source, comparisons_of, tolerance)


def load_prompts(source: str | Path, tolerance: float = 0.01) -> Loaded:
    """Every distinct prompt of a source, in order; see `load`."""
    found = load(source, prompt_of, tolerance)
    return Loaded(list(dict.fromkeys(found.rows)), found.dropped)
