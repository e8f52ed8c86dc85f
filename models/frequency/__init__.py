"""models.frequency."""
