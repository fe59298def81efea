"""Input formats of decoders with learned delimiters.      Radford et al. 2018, sec. 3.3 and fig. 1

    a text              <start> text <extract>
    a pair              <start> premise <delimiter> hypothesis <extract>
    a similarity        <start> a <delimiter> b <extract>,   <start> b <delimiter> a <extract>
    a multiple choice   <start> context question <delimiter> answer <extract>,   for each answer

The head reads the hidden state of <extract>, the last token (models.score_model): those of the two
orders of a similarity are added up, and each answer gets a number of its own.  classification,
classification with both_orders, and multiple_choice make these sequences by the tokenizer's
template, which is saved in tokenizer.json.

A sequence that is too long loses tokens at the end of its texts, one at a time from the longer one.
A question is never cut, and neither are the delimiters: they are added afterwards.
The language model's loss (TuningSettings.auxiliary) is over the same sequences, with delimiters.
"""

from __future__ import annotations

import dataclasses

from ...arguments import check_key, known_arguments, mismatch, wrong
from ...backend import array_module, to_device
from ...models.model import Model, check_model
from ...random import generator
from ...tokenizers import Tokenizer
from ...tokenizers.text.added_tokens import AddedToken
from ...tokenizers.text.postprocessing import TemplateProcessing

# by the names that tokenizer_config.json has for such tokens
DELIMITERS = {"bos_token": "<start>", "sep_token": "<delimiter>", "cls_token": "<extract>"}
ONE, TWO = "<start> $A <extract>", "<start> $A <delimiter> $B <extract>"


@known_arguments
def with_delimiters(model: Model, *, key: int = 0) -> Model:
    """The same decoder with the three delimiters in its tokenizer and in its table of embeddings.

    model: a decoder with task "sequence_classification" or "multiple_choice" and a tokenizer.
    The delimiters are special added tokens with the ids N, N + 1 and N + 2 after the tokenizer's N
    tokens, as in the paper's released code; a text that contains "<start>" does not contain the
    token.  The table's rows N to N + 2 are drawn from N(0, initializer_range^2) by `key`, and the
    table grows if it has fewer.  All other parameters are the model's own.  Freezing layers
    (TuningSettings.trained_layers) freezes the table, and with it the delimiters as drawn.
    A model that has the delimiters is returned as it is.
    ValueError for another model, or if some of the delimiters are in the vocabulary already.
    """
    check_model("model", model)
    check_key("key", key)
    if not hasattr(model.config, "SCORED") or model.task == "causal_lm":
        expected = "a decoder with task sequence_classification or multiple_choice"
        raise wrong("model", expected, model)
    old, N, V = model.text_tokenizer(), len(model.text_tokenizer()), model.config.vocab_size
    if has_delimiters(old):
        return model
    if known := [token for token in DELIMITERS.values() if old.token_to_id(token) is not None]:
        raise mismatch("tokenizer", f"one without {', '.join(DELIMITERS.values())}", known)
    if V < N:
        raise mismatch("tokenizer", f"at most {V} tokens, as the model has", N)
    ids = {token: N + i for i, token in enumerate(DELIMITERS.values())}
    added = [*old.added_tokens, *(AddedToken(token, id) for token, id in ids.items())]
    changes = {"added_tokens": added, "post_processor": TemplateProcessing.of(ONE, TWO, ids)}
    tokenizer = Tokenizer(**old.parts | changes | {"named": old.named | DELIMITERS})
    table = model.params["body"]["tokens"]
    xp, std = array_module(table), model.config.initializer_range
    drawn = generator(key).normal(0, std, (len(ids), table.shape[1]))
    rows = to_device(drawn.astype(table.dtype), model.device)
    table = xp.concatenate([table[:N], rows, table[N + len(ids) :]])
    params = {**model.params, "body": {**model.params["body"], "tokens": table}}
    made = model.with_params(params)
    name = model.config.ALIASES.get("vocab_size", "vocab_size")
    made.config = dataclasses.replace(model.config, **{name: len(table)})
    made.tokenizer, made.file_dtypes = tokenizer, model.file_dtypes
    return made


def has_delimiters(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has the delimiters and puts them around texts."""
    ids = {token.content: token.id for token in tokenizer.added_tokens}
    if not set(DELIMITERS.values()) <= ids.keys():
        return False
    own = {token: ids[token] for token in DELIMITERS.values()}
    return tokenizer.post_processor == TemplateProcessing.of(ONE, TWO, own)
