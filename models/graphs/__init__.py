"""models.graphs."""
