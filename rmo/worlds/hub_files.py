"""Files of datasets of the hub."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from rmo.worlds.packed_text import SourceError, one_line


def fetch(name: str) -> list[Path]:
    """The files OWNER/NAME[@REVISION]/FILES of a dataset of the hub, fetched, in order of name. A revision may contain
    `/`: refs/convert/parquet and refs/pr/3 are known, others are tried, or written with %2F.

    Raises:
      SourceError: it says no files, there are none, or they cannot be fetched.
    """
    owner, _, rest = name.partition("/")
    dataset, at, after = rest.partition("@")
    if at and "/" in dataset:  # the @ is in a file's name
        dataset, at, after = rest, "", ""
    if not at:
        dataset, _, after = rest.partition("/")
    tries = revisions(after) if at else [(None, after)]
    if not tries or not tries[0][1] or not dataset:
        raise SourceError(f"hub:{name}: give OWNER/NAME/FILES, e.g. hub:{name.split('@')[0]}/data/*.parquet")
    for i, (revision, files) in enumerate(tries):
        try:
            root = snapshot(f"{owner}/{dataset}", revision, files)
        except Exception as error:
            if type(error).__name__ == "RevisionNotFoundError" and i + 1 < len(tries):
                continue
            raise SourceError(f"hub:{name} could not be fetched: {one_line(error)}") from error
        found = sorted(path for path in root.glob(files) if path.is_file())
        if not found:
            raise SourceError(f"hub:{name}: the dataset has no such files")
        return found
    raise AssertionError("the last try returns or raises")


def revisions(text: str) -> list[tuple[str | None, str]]:
    """(revision, files) that REVISION/FILES may mean, the likeliest first."""
    parts = text.split("/")
    places: Iterable[int] = range(1, len(parts))
    if parts[0] == "refs":
        places = [3]
    elif "%2F" in parts[0].upper():
        places = [1]
    split = [("/".join(parts[:n]), "/".join(parts[n:])) for n in places]
    return [(unquote(revision), files) for revision, files in split if revision and files]


def snapshot(repo: str, revision: str | None, files: str) -> Path:
    """The directory with those files of a dataset, fetched."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=[files]))
