"""Iterated RLHF. door.py: what rmo knows of it; course.py: all rounds of one stage, one after the other."""
