"""A pod before you have it."""
