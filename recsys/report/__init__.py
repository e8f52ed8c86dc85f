"""Pages and tables of finished runs."""
