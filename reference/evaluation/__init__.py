"""Metrics and n-gram baselines, from the papers."""
