"""A chat format for a model: the template and the tokens it needs, saved with the model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import regex

from ...arguments import as_texts, check_flag, known_arguments, mismatch
from ...backend import array_module
from ...core import flatten, tree_map
from ...families import shapes_of
from ...files import parse_json
from ...models.model import Model, check_decoder, check_model
from ...tokenizers import Tokenizer
from ...tokenizers.chat.formats import TEMPLATES, Template, render, turn_ends
from ...tokenizers.files.settings import CHAT_TEMPLATE, CONFIG
from ...tokenizers.text.added_tokens import AddedToken
from .conversations import check_template

# how formats spell tokens: <|im_end|>, <s>, </s>, [gMASK], <sop>, <eop>, DeepSeek's with wide bars
_TOKEN = regex.compile(r"<[|｜][^<>|｜\s]+[|｜]>|</?s>|\[gMASK\]|<[se]op>")


@known_arguments
def set_chat_format(model: Any, template: Template, *, add_tokens: bool = False) -> None:
    """Give the model a chat format, for its folder and for generation, which stops at turn ends.

        model = tinyplm.load("gpt2")                                   # as transformers wrote it
        set_chat_format(model, TEMPLATES["chatml"], add_tokens=True)   # <|im_start|> and <|im_end|>

    chat_template.jinja is the template's source.  The end ids in generation_config.json are the
    tokens that end a turn and those that end a text.  tinyplm.generate, `tinyplm chat` and
    transformers read both.
    add_tokens: the format's tokens that the vocabulary lacks are added, see `with_tokens`, since
    only a token ends an answer for every reader of the folder.
    A decoder with a score head (a reward model) gets the template alone: it generates nothing.
    ValueError for a template without source, a model without tokenizer, and, without add_tokens,
    for a known format whose tokens the vocabulary lacks; the model is then as it was.
    """
    check_model("model", model)
    if not hasattr(model.config, "SCORED"):
        check_decoder("model", model)
    check_template(template)
    check_flag("add_tokens", add_tokens)
    if template.source is None:
        raise mismatch(
            "template", "one with a Jinja source, which is saved in the folder", "one without"
        )
    tokenizer = model.text_tokenizer()
    lacking = [t for t in format_tokens(template) if tokenizer.token_to_id(t) is None]
    if lacking and add_tokens:
        made = with_tokens(model, lacking)
        model.params, model.config, model.origin = made.params, made.config, made.origin
        model.tokenizer, model.files = made.tokenizer, made.files
    elif lacking and template in TEMPLATES.values():
        # the words of another template may look like tokens, and be meant as text
        expected = f"a vocabulary with {', '.join(lacking)} (add_tokens=True adds them)"
        raise mismatch("tokenizer", expected, "one without")
    model.files = {**model.files, CHAT_TEMPLATE: template.source.encode()}
    if model.task != "causal_lm":
        return
    ends = sorted(model.end_ids().union(turn_ends(model.tokenizer, template)))
    if ends:
        model.generation = {**model.generation, "eos_token_id": ends if len(ends) > 1 else ends[0]}


def format_tokens(template: Template) -> list[str]:
    """What looks like a token in the text of a conversation in this format, in order.

    At the end, if none of them ends an answer, an end of the template that looks like a token.
    """
    roles = ("system", "user", "assistant", "user")
    talk = [{"role": role, "content": "x"} for role in roles]
    try:
        text = render(template, talk, True)
    except ValueError:  # a template without a system message
        text = render(template, talk[1:], True)
    found = list(dict.fromkeys(_TOKEN.findall(text)))
    ends = [end for end in template.ends if _TOKEN.fullmatch(end)]
    return found if set(ends) & set(found) else [*found, *ends[:1]]


@known_arguments
def with_tokens(model: Model, tokens: Sequence[str]) -> Model:
    """The same model with more special tokens in its tokenizer and in its tables.

    The tokens get the ids N, N + 1, ... after the tokenizer's N tokens; the vocabulary grows if it
    has fewer.  Their rows of each table over the vocabulary (the embeddings, and the head if it is
    a matrix of its own) are the mean of the N rows, so that the new logits are, at first, no larger
    than those of known tokens.                                                       Hewitt 2021
    ValueError for a model without tokenizer, one with a prefix or the layout of for_decoding, and
    for a token that is empty or that the vocabulary has.
    """
    check_decoder("model", model)
    names, old = as_texts("tokens", tokens), model.text_tokenizer()
    if known := [t for t in names if not t or old.token_to_id(t) is not None or names.count(t) > 1]:
        raise mismatch("tokens", "texts that are no tokens yet, each once", known)
    N, V = len(old), model.config.vocab_size
    if V < N:
        raise mismatch("tokenizer", f"at most {V} tokens, as the model has", N)
    added = [AddedToken(token, N + i) for i, token in enumerate(names)]
    end, size = N + len(names), max(V, N + len(names))
    name = model.config.ALIASES.get("vocab_size", "vocab_size")
    config, one_more = (dataclasses.replace(model.config, **{name: n}) for n in (size, size + 1))

    def grown(a: Any, shape: tuple[int, ...], other: tuple[int, ...]) -> Any:
        axes = [axis for axis, pair in enumerate(zip(shape, other)) if pair[0] != pair[1]]
        return _with_mean(a, axes[0], N, end, size) if axes else a

    shapes = [shapes_of(model.family, c, model.task) for c in (config, one_more)]
    if flatten(model.params).keys() != flatten(shapes[0]).keys():
        expected = "one with the parameters of its family alone, without a prefix"
        raise mismatch("model", expected, f"{model!r}, which has others")
    made = model.with_params(tree_map(grown, model.params, *shapes))
    made.config, made.file_dtypes = config, model.file_dtypes
    made.tokenizer = Tokenizer(**old.parts | {"added_tokens": [*old.added_tokens, *added]})
    made.files = _with_listed(model.files, added)
    return made


def _with_listed(files: Mapping[str, bytes], added: Sequence[AddedToken]) -> dict[str, bytes]:
    """The files with the tokens in tokenizer_config.json, if that lists added tokens by id.

    transformers then reads them there, and not in tokenizer.json.
    """
    settings: Any = parse_json(files[CONFIG].decode(), CONFIG) if CONFIG in files else {}
    listed = settings.get("added_tokens_decoder") if isinstance(settings, dict) else None
    if not isinstance(listed, dict):
        return dict(files)
    rows = (dataclasses.asdict(token) for token in added)
    new = {str(row.pop("id")): row for row in rows}
    settings["added_tokens_decoder"] = listed | new
    return {**files, CONFIG: json.dumps(settings, ensure_ascii=False, indent=2).encode()}


def _with_mean(a: Any, axis: int, N: int, end: int, size: int) -> Any:
    """a with entries N to end along an axis as the mean of those before, and `size` of them."""
    xp = array_module(a)
    known, rest = xp.split(a, [N], axis=axis)
    wide = known.astype(xp.promote_types(a.dtype, xp.float32), copy=False)
    mean = xp.repeat(wide.mean(axis=axis, keepdims=True).astype(a.dtype), end - N, axis=axis)
    kept = rest[(slice(None),) * axis + (slice(end - N, size - N),)]
    return xp.ascontiguousarray(xp.concatenate([known, mean, kept], axis=axis))
