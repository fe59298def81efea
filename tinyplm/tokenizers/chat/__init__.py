"""Chat formats: a conversation as the one text, or the token ids, that a chat model was trained on.

messages.py says what a conversation is, with calls of tools; formats.py has the well-known formats;
sandbox.py runs the Jinja templates of model folders, within the limits of meter.py.
"""

from .formats import (
    TEMPLATES,
    Template,
    encode,
    folder_template,
    turn_ends,
)
from .messages import Messages, Tools, check_messages, check_tools

__all__ = [
    "TEMPLATES",
    "Messages",
    "Template",
    "Tools",
    "check_messages",
    "check_tools",
    "encode",
    "folder_template",
    "turn_ends",
]
