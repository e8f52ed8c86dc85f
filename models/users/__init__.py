"""models.users."""
