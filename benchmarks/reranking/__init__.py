"""What diversified lists cost in accuracy."""
