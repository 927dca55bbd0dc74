"""Every way of spending KL on a reward."""
