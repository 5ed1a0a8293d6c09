"""Shared fixtures: models."""
