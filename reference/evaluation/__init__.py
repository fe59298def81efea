"""Evaluation again, from the papers."""
