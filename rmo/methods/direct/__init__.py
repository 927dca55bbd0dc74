"""Direct alignment: a policy learns from comparisons themselves, without a reward model (DPO, IPO, SLiC)."""
