"""models.language."""
