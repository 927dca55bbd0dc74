"""Which code runs: a hash of the package's own files, and the commit that they are of.

A stage's digest knows settings and not code. So each stage records both beside its results, and `rmo list` can say
"made by other code" where the recorded hash is not `code_hash()`; the commit says where that code is to be found.

Both are found at the first call and kept for as long as the process lives, as the code that runs is. Call them when a
run begins: an edit while it goes on then changes nothing of what it records.
"""

import functools
import hashlib
import os
import subprocess
import time
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
SECONDS = 0.8  # that git may take, all calls together


@functools.cache
def code_hash(package: Path = PACKAGE) -> str:
    """12 hex digits of all .py files in a directory, their paths in it and their contents.

    Tests, configs and style sheets are not among them. The same for a checkout and for a wheel made of it.
    """
    total = hashlib.sha256()
    files = {file.relative_to(package).as_posix(): file for file in package.rglob("*.py")}
    for name, file in sorted(files.items()):
        each = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{each} {name}\n".encode())
    return total.hexdigest()[:12]


@functools.cache
def commit(package: Path = PACKAGE) -> str:
    """The commit of the git checkout that a directory belongs to, 40 hex digits, with `+changes` where files in the
    directory are not as in that commit (changed, removed, or new and not ignored).

    Empty without git, without a checkout, where the checkout does not hold the directory (a package that is installed
    somewhere inside another project), and where git takes longer than `SECONDS`. Never raises.
    """
    end = time.monotonic() + SECONDS
    if not git(package, end, "ls-files", "--", "__init__.py"):
        return ""
    said = git(package, end, "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--", ".").splitlines()
    found = [line.removeprefix("# branch.oid ") for line in said if line.startswith("# branch.oid ")]
    if not found or found == ["(initial)"]:
        return ""
    changes = any(not line.startswith("#") for line in said)
    return f"{found[0]}+changes" if changes else found[0]


def git(directory: Path, end: float, *args: str) -> str:
    """What a git command that only reads says; empty where it fails or has not ended at the time `end`."""
    # A hook that started us says by such variables which repository it is about, which need not be ours.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env["GIT_OPTIONAL_LOCKS"] = "0"  # others may be at work in this checkout
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *args],
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=max(end - time.monotonic(), 0),
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")
