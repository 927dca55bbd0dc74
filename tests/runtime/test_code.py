"""The code of a run is named by its files and by its commit, without ever standing in the way of the run."""

import os
import shutil
import subprocess
import time

import pytest

from rmo.runtime import code

GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
WHO = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")


@pytest.fixture
def package(tmp_path):
    """A copy of the package, in a folder of its own."""
    at = tmp_path / "checkout" / "rmo"
    shutil.copytree(code.PACKAGE, at, ignore=shutil.ignore_patterns("__pycache__"))
    return at


def git(package, *args):
    env = {"PATH": os.environ["PATH"], **GIT}
    done = subprocess.run(["git", *WHO, *args], cwd=package.parent, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def committed(package):
    git(package, "init", "-q")
    git(package, "add", ".")
    git(package, "commit", "-qm", "one")
    return git(package, "rev-parse", "HEAD")


def fresh(function, *args):
    """As another process would find it."""
    function.cache_clear()
    return function(*args)


def test_a_copy_has_the_same_hash(package):
    assert len(code.code_hash()) == 12
    assert int(code.code_hash(), 16) >= 0
    assert code.code_hash(package) == code.code_hash()


@pytest.mark.parametrize("edit", ["change", "add", "remove", "rename", "swap"])
def test_an_edit_changes_the_hash(package, edit):
    file, other = package / "models" / "attention.py", package / "models" / "matmul.py"
    before = code.code_hash(package)
    if edit == "change":
        file.write_text(file.read_text() + "\n")
    elif edit == "add":
        (package / "models" / "new.py").write_text("")
    elif edit == "remove":
        file.unlink()
    elif edit == "rename":
        file.rename(package / "models" / "attending.py")
    else:
        one, two = file.read_bytes(), other.read_bytes()
        file.write_bytes(two)
        other.write_bytes(one)
    assert code.code_hash(package) == before  # this process still runs what it started with
    assert fresh(code.code_hash, package) != before


def test_other_files_do_not(package):
    before = code.code_hash(package)
    (package / "report" / "page" / "page.css").write_text("p { color: red }")
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "x.pyc").write_bytes(b"1")
    assert fresh(code.code_hash, package) == before


def test_commit_of_a_checkout(package, monkeypatch):
    assert code.commit(package) == ""
    head = committed(package)
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook of another repository
    assert fresh(code.commit, package) == head
    (package.parent / "notes.txt").write_text("not code")
    assert fresh(code.commit, package) == head
    (package / "new.py").write_text("")
    assert code.commit(package) == head  # of the start of this process
    assert fresh(code.commit, package) == f"{head}+changes"
    (package / "new.py").unlink()
    (package / "__init__.py").write_text("")
    assert fresh(code.commit, package) == f"{head}+changes"


def test_a_package_installed_inside_another_project_has_no_commit(package):
    installed = package.parent / ".venv" / "rmo"
    committed(package)
    shutil.copytree(package, installed)
    assert code.commit(installed) == ""
    (package.parent / ".gitignore").write_text(".venv\n")
    assert fresh(code.commit, installed) == ""


def test_nothing_committed_yet(package):
    git(package, "init", "-q")
    git(package, "add", ".")
    assert code.commit(package) == ""


@pytest.mark.parametrize("script", [None, "exit 1", "sleep 5", "sleep 5 & sleep 5"])
def test_no_git_or_one_that_hangs(package, script, monkeypatch, tmp_path, capfd):
    committed(package)
    shell = shutil.which("sh")
    assert shell
    places = tmp_path / "bin"
    places.mkdir()
    if script:
        (places / "git").write_text(f"#!{shell}\nPATH={os.environ['PATH']}\necho noise >&2\n{script}\n")
        (places / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(places))
    started = time.monotonic()
    assert fresh(code.commit, package) == ""
    assert time.monotonic() - started < 1
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_is_not_there(tmp_path):
    assert code.commit(tmp_path / "none") == ""
