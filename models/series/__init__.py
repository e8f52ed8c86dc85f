"""Forecasters of series of sales."""
