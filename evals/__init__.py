"""Evaluation suites, metrics with intervals, paired tests and gates. Arrives with the learning loop."""
