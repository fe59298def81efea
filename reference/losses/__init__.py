"""Losses, one formula per function, and the advantages and rewards they use."""
