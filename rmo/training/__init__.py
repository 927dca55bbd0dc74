"""One update, one resumable loop."""
