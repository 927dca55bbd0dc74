"""Arrays in, arrays out: policy, reward model, sampling, scoring."""
