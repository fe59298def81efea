"""Formulas of the corpus pipeline."""
