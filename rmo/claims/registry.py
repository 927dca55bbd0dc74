"""The claims in order: C1 to C5 are in claims_rm.py, C6 to C10 in claims_data.py, C11 to C25 in claims_policy.py."""

from rmo.claims import claim, policy, rm_data, rm_size

MODULES = (rm_size, rm_data, policy)  # importing them registers their claims
CLAIMS = sorted(claim.CLAIMS, key=lambda c: (int("".join(x for x in c.name if x.isdigit())), c.name))
