"""Checks of anybody's code against tinyplm: traces of a model's intermediates."""

from .trace import Call, Record, Trace, trace

__all__ = ["Call", "Record", "Trace", "trace"]
