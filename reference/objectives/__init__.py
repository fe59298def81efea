"""Objectives of encoder-decoders, with their random choices given or enumerated."""
