"""The claims in order: C1 to C5 are in claims_rm.py, C6 to C10 in claims_data.py, C11 to C25 in claims_policy.py."""

from rmo import claims_data, claims_policy, claims_rm, judge

MODULES = (claims_rm, claims_data, claims_policy)  # importing them registers their claims
CLAIMS = sorted(judge.CLAIMS, key=lambda c: (int("".join(x for x in c.name if x.isdigit())), c.name))
