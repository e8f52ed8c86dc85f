"""Predictors of labels of users."""
