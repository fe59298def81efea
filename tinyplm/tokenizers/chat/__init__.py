"""Chat formats: a conversation as the one text, or the token ids, that a chat model was trained on.

formats.py has the well-known formats; sandbox.py runs the Jinja templates of model folders, and
needs jinja2.
"""

from .formats import (
    TEMPLATES,
    Messages,
    Template,
    check_messages,
    encode,
    folder_template,
    turn_ends,
)

__all__ = [
    "TEMPLATES",
    "Messages",
    "Template",
    "check_messages",
    "encode",
    "folder_template",
    "turn_ends",
]
