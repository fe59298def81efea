"""Steps of rules for single documents (data/pipeline/step.py), from published pipelines.

unicode.py    one form of the same text
"""
