"""Phases: from when an event may be seen, and when a row is asked."""

TRAIN, VALIDATION, TEST = 0, 1, 2
PHASES = ("train", "validation", "test")
"""Their names."""
