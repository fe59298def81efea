"""The oracle of tinyplm: the formulas again, straight from the papers, in float64, one scalar at a time.

Nothing here is fast and nothing is clever. Every function is the loop that the equation in its docstring
describes: an output filled with zeros, a loop over its indices, and one line of arithmetic in the middle.
Read the equation, then the loop, and see that they say the same. Only NumPy (as a container for numbers) and
math are imported, nothing of tinyplm, so that an error there cannot repeat itself here.

The files mirror those of tinyplm. A function in tinyplm/layers/linear.py returns (y, backward); its twin in
reference/layers/linear.py has the same name and arguments and returns y alone: gradients are checked by
differences. Where an argument is itself a component (the activation of an mlp, the parts of a block), a
reference function that returns only its value is expected. Masks are boolean, True = may attend. Inputs are
expected to be finite. There is no dropout here.

Two habits of numerics, and no others: the maximum is subtracted before exponentials are summed, and a sigmoid
never takes the exponential of a large positive number. Neither changes the value of the formula.

Shapes: B batch, T query length, S key length, D width, H heads, K key/value heads, E head width,
F feed-forward width, V vocabulary, C longest context.

In reading order:
    layers/      linear, embedding, norm, activation, softmax, position, rope, mask, attention, mlp, block, heads
    losses/      cross_entropy
    optim/       adamw, schedule, clip
    generation/  sampling
    tuning/      lora, prefix
"""
