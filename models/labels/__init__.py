"""models.labels."""
