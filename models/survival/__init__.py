"""Survival models: how long until an event."""
