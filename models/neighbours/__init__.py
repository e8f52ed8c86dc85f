"""models.neighbours."""
