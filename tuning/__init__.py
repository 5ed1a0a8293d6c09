"""Hyper-parameter and retrieval search on Ray Tune. Arrives with the learning loop."""
