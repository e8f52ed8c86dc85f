"""How often, and how lately."""
