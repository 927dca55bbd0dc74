"""One score from one or several RMs."""
