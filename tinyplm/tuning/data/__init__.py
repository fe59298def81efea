"""Data for tuning, from files to arrays.

records        files of instructions, conversations, preferences, prompts, labelled texts
conversations  chat templates applied: conversations and preferences as token sequences
chat_format    a model's chat format: the template, the tokens it needs, the ends of turns
sequences      TokenSequence: token ids and which of them count
pairs          preference pairs
feedback       single answers, judged desirable or not
packing        several sequences in one row
"""
