"""Shared fixtures: qdrant."""
