"""Prompts: tasks posed as text.

few_shot      solved examples before the question
cloze         labels scored as words in a gap or after a prefix
instructions  tasks in several phrasings, as chat messages
"""
