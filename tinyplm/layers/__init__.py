"""The parts of a model, plain: `y, backward = f(...)`, written as their docstrings.

linear.py                 y = x W + b
embedding.py position.py  look-up; learned and sinusoidal positions
norm.py                   LayerNorm, RMSNorm
activation.py softmax.py  ReLU, tanh, GELU, SiLU, log-sigmoid; softmax, log-softmax
dropout.py                dropout with explicit randomness
mlp.py                    feed-forward layers, plain and gated
mask.py                   who may attend to whom
attention.py              attention; multi-head, grouped-query, cross-attention
attention_parts.py        what a caller may choose of it: rotary positions, a cache, a trained
prefix rope.py rope_scaling.py   rotary positions, and their frequencies
cache.py                  keys and values of earlier calls
disentangled.py relative_buckets.py convolution.py                   DeBERTa
two_stream.py relative_shift.py stream_views.py memory.py            Transformer-XL, XLNet
block.py                  residual blocks with the norm before or after
pooling.py heads.py       one vector for a sequence; logits, classes, spans

Import from the modules: many functions have the name of theirs.  What has a faster form is in
kernels/ under the same name.
"""
