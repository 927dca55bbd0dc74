"""Curves to numbers with intervals."""
