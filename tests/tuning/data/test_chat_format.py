"""Tokens that are added to a vocabulary, in models of every family."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.laws import MODEL, equal, relative_error
from tests.support import families
from tests.support.later_tokens import later
from tinyplm.core import flatten
from tinyplm.tokenizers import Tokenizer
from tinyplm.tuning import with_prefix, with_tokens
from tinyplm.tuning.adapters.prefix import prefix_parameters

IDS = [[5, 6, 7, 8]]


@functools.cache
def tokenizer():
    return Tokenizer.train(["a few words"], 262, ["<s>", "</s>"])


def model(name, spare=0):
    """A tiny decoder; spare: the rows of its vocabulary that no token has."""
    field = families.FAMILIES[name].config.ALIASES.get("vocab_size", "vocab_size")
    made = families.tiny(name, **{field: len(tokenizer()) + spare})
    made.tokenizer = tokenizer()
    return made


@pytest.mark.parametrize("spare", [0, 2, 5])
@pytest.mark.parametrize("name", families.FAMILIES)
def test_known_tokens_keep_their_logits_and_new_ones_have_the_mean(name, spare):
    """Without a cap of the logits, which is not linear; with 5 spare rows two are left as they were."""
    before, N = model(name, spare), len(tokenizer())
    after = with_tokens(before, ["<x>", "<y>", "<z>"])
    assert after.config.vocab_size == N + max(3, spare) and before.config.vocab_size == N + spare
    assert [after.tokenizer.token_to_id(token) for token in ("<x>", "<y>", "<z>")] == [N, N + 1, N + 2]
    old, new = (m(IDS, grad=False)[0]["logits"] for m in (before, after))
    assert new.shape[-1] == N + max(3, spare)
    assert relative_error(new[..., :N], old[..., :N]) < MODEL
    assert spare < 5 or relative_error(new[..., N + 3 :], old[..., N + 3 :]) < MODEL
    if before.config.logit_cap is None:
        mean = np.repeat(old[..., :N].mean(axis=-1, keepdims=True), 3, axis=-1)
        scale = np.abs(old).max()  # the mean may be near 0
        assert np.abs(new[..., N : N + 3] - mean).max() < MODEL * scale


def test_modules_for_later_tokens_have_the_new_tokens_too():
    before = later(1, vocab_size=len(tokenizer()))
    before.tokenizer = tokenizer()
    after = with_tokens(before, ["<x>"])
    tables = [path for path, a in flatten(before.params).items() if len(tokenizer()) in a.shape]
    assert tables and all(len(tokenizer()) + 1 in flatten(after.params)[path].shape for path in tables)
    assert after.task == before.task and equal(after(IDS, grad=False)[0]["hidden"], before(IDS, grad=False)[0]["hidden"])


def test_what_is_refused():
    made = model("llama")
    prefixed = with_prefix(made, prefix_parameters(made, rows=2))
    for given, tokens, message in (
        (made, [""], "^tokens: expected texts that are no tokens yet, each once, got "),
        (made, ["<s>"], "^tokens: expected texts that are no tokens yet, each once, got "),
        (made, ["<x>", "<x>"], "^tokens: expected texts that are no tokens yet, each once, got "),
        (made, "<x>", "^tokens: expected several strings, got '<x>'"),
        (prefixed, ["<x>"], "^model: expected one with the parameters of its family alone, without a prefix, got <llama"),
        (made.for_decoding(), ["<x>"], "^model: expected one with the parameters of its family alone"),
    ):
        with pytest.raises(ValueError, match=message):
            with_tokens(given, tokens)
