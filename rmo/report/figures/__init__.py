"""Figures of the paper and of our own."""
