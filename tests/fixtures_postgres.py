"""Shared fixtures: postgres."""
