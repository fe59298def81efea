"""Everything around the model, in the order in which text passes through it.

added_tokens       cuts out added tokens; encoding: truncation, padding, arrays
normalization      rewrites text; unicode_forms, precompiled: larger normalizers
pretokenization    cuts text into words; patterns, backtracking: its regular expressions
postprocessing     adds special tokens
decoding           tokens to text; stream: one token at a time

bytelevel (bytes as characters) and alignment (text with offsets) serve several of these.
"""
