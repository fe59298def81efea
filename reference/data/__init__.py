"""Formulas of the corpus pipeline: what is in a corpus."""
