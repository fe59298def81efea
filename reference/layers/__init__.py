"""The layers of a transformer, one formula per function."""
