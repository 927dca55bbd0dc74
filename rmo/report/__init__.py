"""Pictures and pages from files alone."""
