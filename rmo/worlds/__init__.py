"""Prompts, texts, judges."""
