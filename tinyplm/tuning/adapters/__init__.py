"""Adapters: few trained parameters on a frozen model.

lora         low-rank updates of matrices
prefix       keys and values before each layer's own
ptuning      the same, from files of ChatGLM's P-tuning v2
soft_prompt  vectors before the tokens' embeddings
files        saving and loading
"""
