"""models.factors."""
