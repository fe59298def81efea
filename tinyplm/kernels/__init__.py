"""Fast twins of layers and losses: the same name, parameters and numbers as the plain form.

Each docstring says what the twin does differently and what that gains: at least 3% of a training
step, of a decoding step, or of peak memory.  For equation and gradient read the plain form.
tests/kernels/test_twins.py holds each equal to it.

activation.py       GELUs in pieces that stay in the cache (blocks.py)
experts.py          experts whose gradients are multiplied out in their place
mlp.py              activations computed again instead of kept
norm.py             Gemma's RMSNorm, whose statistic is a scalar for a single token
attention.py        attention by blocks of queries (block_attention.py) where sequences are long,
                    also with sinks
latent.py           latent attention in whichever form is less work
disentangled.py     DeBERTa's scores by relative position, shifted instead of gathered
cross_entropy.py    losses over a vocabulary in chunks of tokens; so are log_probs.py and
                    distillation.py
"""
