"""Whole models, from the tensors of the published files to logits, one description per function."""
