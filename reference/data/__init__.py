"""Twins of tinyplm/data: what is in a corpus."""
