"""One file per command, each with its options class and `main(args)`. Heavy imports stay inside functions."""
