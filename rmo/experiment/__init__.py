"""Which stage, when, from what."""
