"""A seeded sample of the campaign of damaged files; all of it: `launch/local.sh python -m tests.faults --part damage`."""

from tests.faults import damage


def test_whatever_is_damaged_is_noticed_or_does_not_matter(tmp_path):
    cases = list(damage.sample(40, 0, tmp_path))
    assert len(cases) >= 30
    assert not [case for case in cases if case.problem]
    kinds = {kind for kind in damage.KINDS if any(f" {kind} " in case.what for case in cases)}
    assert kinds == set(damage.KINDS)
