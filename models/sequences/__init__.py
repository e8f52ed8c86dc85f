"""models.sequences."""
