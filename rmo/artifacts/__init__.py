"""What each stage leaves behind, typed, written and read in one place."""
