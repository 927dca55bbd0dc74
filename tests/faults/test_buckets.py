"""A sample of the campaign of `buckets`: one stage in a bucket, killed and disturbed at requests to the service."""

import os
import random

import pytest

from tests.faults import buckets, kills, one_stage


@pytest.fixture
def service():
    """gs://bucket in this process; the environment is put back."""
    pytest.importorskip("gcsfs")
    before = dict(os.environ)
    buckets.serve()
    yield
    buckets.clear()
    os.environ.clear()
    os.environ.update(before)


def test_requests_are_told_apart():
    at = "/storage/v1/b/bucket/o"
    asked = [
        ("GET", f"{at}/runs%2Fa", {"alt": "media"}, b""), ("GET", f"{at}/runs%2Fa", {}, b""), ("GET", at, {"prefix": "runs/"}, b""),
        ("POST", "/upload/storage/v1/b/bucket/o", {"name": "runs/a"}, b""), ("DELETE", f"{at}/runs%2Fa", {}, b""),
        ("POST", f"{at}/runs%2Fa/rewriteTo/b/bucket/o/runs%2Fb", {}, b""),
    ]  # fmt: skip
    kinds = [buckets.operation(*one).kind for one in asked]
    assert kinds == ["read", "look", "list", "write", "delete", "copy"]
    assert buckets.operation(*asked[0]).path == "runs/a"


def test_a_stage_in_a_bucket_disturbed_anywhere_ends_in_the_same_bytes(service, tmp_path):
    one_stage.prepare(tmp_path)
    finished = one_stage.Finished(tmp_path / "whole")
    with one_stage.often():
        finished.make("=sft")
        points, seconds = buckets.trace(finished, tmp_path, ["sft"])
        chosen = list(kills.choose(points, seconds, buckets.FAULTS, 3, random.Random(0)))
        found = [(*case, buckets.play(finished, tmp_path, *case, f"case-{n}")) for n, case in enumerate(chosen)]
    assert not [case for case in found if case[2]]
    assert sum(problem is not None for *_, problem in found) >= 2
