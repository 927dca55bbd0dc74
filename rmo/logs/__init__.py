"""Other people's numbers."""
