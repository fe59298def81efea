"""The layers of a transformer, one formula a function."""
