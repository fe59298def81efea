"""Fast twins of layers and losses: the same name, parameters and numbers as the plain form.

Each says what it does differently and what that gains: at least 3% of a training step, of a decode
step, or of peak memory.  tests/kernels/test_twins.py holds each equal to its plain form.

activation.py       GELUs in pieces that stay in the cache (blocks.py)
mlp.py              activations computed again instead of kept
attention.py        attention by blocks of queries (block_attention.py) where sequences are long
cross_entropy.py log_probs.py distillation.py     losses over a vocabulary in chunks of tokens
"""
