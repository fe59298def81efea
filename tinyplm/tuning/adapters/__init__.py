"""Adapters: few trained parameters on a frozen model.

lora         low-rank updates of matrices
prefix       keys and values before each layer's own
soft_prompt  vectors before the tokens' embeddings
files        saving and loading
"""
