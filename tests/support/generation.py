"""What the tests of generation share: models with a short context or with one character a token, prompts, comparisons."""

from __future__ import annotations

import numpy as np

from tests.laws import MODEL
from tests.support.families import tiny
from tinyplm.tokenizers import Tokenizer

PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
EVERYTHING = {"temperature": 1.5, "top_k": 9, "top_p": 0.97, "min_p": 0.01, "repetition_penalty": 1.2, "no_repeat_ngram": 3}


MODELS = {
    "gpt2": lambda **changes: tiny("gpt2", **{"n_positions": 12} | changes),
    "llama": lambda **changes: tiny("llama", max_position_embeddings=12, **changes),
    # trained on 6 positions, stretched to 12: beyond 6 each new token changes every rotation, so keys cannot be cached
    "dynamic": lambda **changes: tiny(
        "llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10.0}, **changes
    ),
}


def ids_of(continuations):
    return [text.ids for text in continuations]


def assert_same(ours, theirs, tolerance=MODEL):
    """The same tokens; log-probabilities to 1e-10, since reordering some thousand float64 additions leaves an error of 1e-13."""
    assert ids_of(ours) == ids_of(theirs) and [c.finished for c in ours] == [c.finished for c in theirs]
    for a, b in zip(ours, theirs):
        assert np.allclose(a.log_probabilities, b.log_probabilities, rtol=0, atol=tolerance)
        assert len(a.log_probabilities) == len(a.ids) and a.text == b.text


def full_pass(model, ids):
    """The log-softmax after the last id, from a pass over the last `context` ids."""
    logits = model([ids[-model.config.context :]], grad=False)[0]["logits"][0, -1].astype("float64")
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def bytes_model(padding=0, family="gpt2", special_tokens=(), **changes):
    """A model with single-byte tokens, those below 94 the visible ASCII characters, and `padding` extra embedding rows."""
    tokenizer = Tokenizer.train(["a"], 256 + len(special_tokens), special_tokens)
    model = MODELS[family](vocab_size=tokenizer.vocab_size + padding, **changes)
    model.tokenizer = tokenizer
    return model
