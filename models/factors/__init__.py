"""Factorisations of who had what, and autoencoders."""
