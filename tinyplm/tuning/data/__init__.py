"""Data for tuning, from files to arrays.

records        JSON lines of instructions, conversations, preferences, prompts
conversations  chat templates applied: conversations and preferences as token sequences
sequences      TokenSequence: token ids and which of them count
pairs          preference pairs
feedback       single answers, judged desirable or not; feedback_records: the check of their records
packing        several sequences in one row
"""
