"""Data for tuning, from files to arrays.

records        JSON lines of instructions, conversations, preferences, prompts
conversations  chat templates applied: conversations and preferences as token sequences
sequences      TokenSequence: token ids and which of them count
pairs          preference pairs
packing        several sequences in one row
"""
