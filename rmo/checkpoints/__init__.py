"""Parameters in and out."""
