"""Phases: from when an event may be seen, and which rows are predicted when."""

TRAIN, VALIDATION, TEST, NEVER = 0, 1, 2, 3
PHASES = ("train", "validation", "test")
"""Their names; an event that is never seen has none."""
