"""The oracle of tinyplm: the formulas again, from the papers, in float64, one scalar at a time.

Nothing here is fast or clever. Every function is the loop described by the equation in its
docstring: an output of zeros, a loop over its indices, one line of arithmetic. Read the equation,
then the loop, and check that they agree. Only NumPy (as a container for numbers) and math are
imported, and nothing from tinyplm, so an error there cannot recur here.

The loops take exp, sqrt, ... and their arrays from scalar.py. With floats these are math's and
NumPy's. With dual numbers (dual.py) in an argument, the same loop gives the exact derivative.

The files mirror those of tinyplm. A function in tinyplm/layers/linear.py returns (y, backward); its
twin in reference/layers/linear.py has the same name and arguments and returns y alone: gradients
are checked against its derivative. Where an argument is itself a component (the activation of an
mlp, the parts of a block), pass a reference function, which returns only its value. Masks are
boolean, True = may attend. Inputs must be finite. Attention and blocks have no dropout.

There are only two numerical safeguards: the maximum is subtracted before exponentials are summed,
and a sigmoid never exponentiates a large positive number. Neither changes the formula's value.

Shapes: B batch, T query length, S key length, D width, H heads, K key/value heads, E head width,
F feed-forward width, V vocabulary, C longest context.

In reading order:
    scalar.py, dual.py
    layers/      linear, embedding, norm, activation, softmax, position, rope, alibi, mask,
                 attention, latent, relative_bias, mlp, moe, block, heads
    models/      decoder, encoder_decoder, published
    losses/      cross_entropy, balance
    optim/       adamw, adafactor, schedule, clip
    objectives/  seq2seq, spans, noising, mixture
    generation/  sampling, beam, speculative
    tuning/      lora, prefix
    evaluation/  metrics, rouge, bleu, ngram
    data/        deduplication, mixing
    tokenizers/  bpe, wordpiece, unigram
"""
