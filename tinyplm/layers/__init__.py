"""The parts of a model in plain form: `y, backward = f(...)`, coded as the docstrings state them.

linear.py            y = x W + b
embedding.py         look-up of rows in a table, and weighted sums of rows
position.py          learned and sinusoidal positions
norm.py              LayerNorm, RMSNorm; RMSNorm whose gain is 1 + w (Gemma)
activation.py        ReLU, tanh, GELU (exact and tanh), SiLU, log-sigmoid; soft_cap keeps scores
                     and logits between -cap and cap (Gemma 2)
softmax.py           softmax, log-softmax
dropout.py           dropout with explicit randomness
mlp.py               feed-forward layers, plain and gated (SwiGLU, GeGLU; gpt-oss's with clamps)
routing.py           which experts see a token, and their weights (Mixtral, DeepSeek, gpt-oss)
experts.py moe.py    the chosen experts of each token; with their router and a shared expert
mask.py              who may attend to whom
attention.py         attention: multi-head, grouped-query, multi-query
cross_attention.py   attention to another sequence, whose keys and values are computed once
attention_parts.py   parts of it that a caller chooses: rotary positions, a cache, a prefix; norms
                     of queries and keys, by heads (Qwen3) or over all heads together (OLMo 2)
sinks.py             attention whose softmax has a sink of each head, which is no key (gpt-oss)
latent.py            latent attention (MLA): all keys and values from one small vector a token,
                     which alone is cached (DeepSeek)
multi_token.py       the input of DeepSeek-V3's modules for later tokens
alibi.py             ALiBi: scores that fall with distance, in place of positions (BLOOM)
relative_bias.py     a learned bias of scores for each bucket of distances (T5)
rope.py              RoPE: the rotation of queries and keys
rope_scaling.py      RoPE's frequencies, and how they stretch to longer contexts
cache.py             keys and values of earlier calls, or what stands for them; where a layer has
                     a window, a buffer that rolls: it keeps no more than the window needs
cache_size.py        how many bytes that is, from the sizes alone
cache_alignment.py   cut back by another length in each sample, as in speculative decoding
source_cache.py      the same for an encoder-decoder, with the keys and values of the source
block.py             residual blocks, with the norm before the sublayer, after the sum, after the
                     sublayer (OLMo 2), or before and after it (Gemma 2); and parallel_block, whose
                     two sublayers read the same input (PaLM)
pooling.py heads.py  one vector for a sequence; classes, spans, the masked-LM transform
disentangled.py      disentangled attention (DeBERTa), with its convolution in convolution.py
relative_buckets.py  distances between query and key as rows of a table (DeBERTa, T5)
two_stream.py        relative attention (Transformer-XL) and two streams (XLNet), with
                     relative_shift.py, stream_views.py and memory.py

Import from the modules, since many functions share their module's name.  A layer that has a faster
form has it in kernels/, under the same name.
"""
