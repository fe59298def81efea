"""The sentence encoder: texts to vectors, and the gradient of that."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..arguments import (
    MOST,
    check_choice,
    check_flag,
    check_function,
    check_path,
    check_whole,
    is_number,
    known_arguments,
    listed,
    shown,
    wrong,
)
from ..backend import array_module, at_least_float32, to_host
from ..core import chain, map_threads
from ..files import printable
from ..hub import folders as hub
from ..layers.pooling import cls_pooling, l2_normalise, max_pooling, mean_pooling
from ..models.checks import check_gradient
from ..models.encoder_model import EncoderModel
from ..tokenizers.files.settings import read_settings
from ..tokenizers.text.encoding import Encoding
from . import files

POOLINGS: dict[str, Callable] = {
    "mean": mean_pooling,
    "cls": lambda x, *, mask: cls_pooling(x),
    "max": max_pooling,
}


class SentenceEncoder:
    """An encoder of any family with its tokenizer, pooling the hidden states to one vector.

    model       an EncoderModel; only the body's parameters are used
    pooling     "mean" or "max" over all tokens, including [CLS] and [SEP], or "cls": the first one
    normalise   scale vectors to length 1
    max_length  tokens per text, with special ones; by default the limit of model and tokenizer
    lowercase   convert texts to lower case before tokenization, which then finds no "[SEP]" in them
    """

    @known_arguments
    def __init__(
        self,
        model: EncoderModel,
        pooling: str = "mean",
        *,
        normalise: bool = True,
        max_length: int | None = None,
        lowercase: bool = False,
    ) -> None:
        if not isinstance(model, EncoderModel):
            raise TypeError(f"model: expected an encoder, got {shown(model)}")
        check_choice("pooling", pooling, POOLINGS)
        check_flag("normalise", normalise)
        check_flag("lowercase", lowercase)
        self.model, self.pooling = model, pooling
        self.normalise, self.lowercase = normalise, lowercase
        self._template = _template(model.text_tokenizer())
        self.max_length = _longest(model) if max_length is None else max_length
        least, most = len(self._template), model.config.context
        too_long = most is not None and type(self.max_length) is int and self.max_length > most
        if type(self.max_length) is not int or self.max_length < least or too_long:
            limits = f"{least} (one token and the special ones) to {most} (the model's positions)"
            raise wrong("max_length", f"an integer from {limits}", self.max_length)
        self.notes: bytes | None = None  # config_sentence_transformers.json, as read

    def __repr__(self) -> str:
        normalised = ", normalised" if self.normalise else ""
        how = f"{self.pooling}{normalised}, {self.max_length} tokens"
        return f"<SentenceEncoder of {self.model!r}: {how}>"

    # ---- files

    @classmethod
    @known_arguments
    def load(
        cls, folder: str | os.PathLike, *, dtype: str | None = None, device: str = "cpu"
    ) -> SentenceEncoder:
        """From a sentence-transformers folder: modules Transformer, Pooling, optionally Normalize.

        ValueError naming what is not supported: other modules or pooling modes, a prompt before
        every text. The token limit is the file's, but at most the model's positions.
        dtype, device: see tinyplm.load.
        """
        check_path("folder", folder)
        folder = Path(folder)
        names, paths = files.read_modules(folder)
        model = hub.load(folder / paths[0], dtype=dtype, device=device)
        settings = files.read_transformer(folder / paths[0], model)
        limit = settings.get("max_seq_length")
        if limit is not None and model.config.context is not None:
            limit = min(limit, model.config.context)
        pooling = files.read_pooling(folder / paths[1] / "config.json", POOLINGS)
        try:
            encoder = cls(
                cast(EncoderModel, model),
                pooling,
                normalise="Normalize" in names,
                max_length=limit,
                lowercase=bool(settings.get("do_lower_case")),
            )
        except ValueError as error:
            raise ValueError(f"{printable(folder)}: {error}") from None
        encoder.notes = files.read_notes(folder / files.NOTES)
        return encoder

    @known_arguments
    def save(self, folder: str | os.PathLike, *, dtype: str | None = None) -> None:
        """Write the model (see tinyplm.save) and its modules for sentence-transformers."""
        check_path("folder", folder)
        folder = Path(folder)
        hub.save(self.model, folder, dtype=dtype)
        files.write_modules(
            folder,
            width=self.encode([]).shape[1],
            pooling=self.pooling,
            normalise=self.normalise,
            max_length=self.max_length,
            lowercase=self.lowercase,
            notes=self.notes,
        )

    # ---- texts to vectors

    @known_arguments
    def tokens(self, texts: Iterable[str], *, allow_special: bool = False) -> list[list[int]]:
        """The ids of each text with special tokens around them, truncated to max_length at the end.

        White space around a text is removed, as in sentence-transformers. allow_special: "[SEP]" in
        a text is the special token (as it always is there) rather than ordinary characters.
        """
        if isinstance(texts, str):
            raise TypeError("texts: expected a list of strings, got a single one")
        texts = listed("texts", texts, "a list of strings")
        check_flag("allow_special", allow_special)
        tokenizer, room = self.model.text_tokenizer(), self.max_length - len(self._template) + 1
        before, after = self._template.ids[: self._place], self._template.ids[self._place + 1 :]
        result = []
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts: number {number}: expected a string, got {shown(text)}")
            text = (text.lower() if self.lowercase else text).strip()
            result.append(before + tokenizer.encode(text, allow_special)[:room] + after)
        return result

    @known_arguments
    def inputs(self, texts: Iterable[str], *, allow_special: bool = False) -> dict[str, np.ndarray]:
        """Arrays (B, T) for the model, padded on the right to the longest text."""
        return self._padded(self.tokens(texts, allow_special=allow_special))

    @known_arguments
    def encode(
        self,
        texts: Iterable[str],
        *,
        batch_size: int = 16,
        workers: int | None = None,
        allow_special: bool = False,
        progress: Callable[[int], Any] | None = None,
    ) -> np.ndarray:
        """(N, D), one vector per text, on the host, in the model's dtype but at least float32.

        Texts of similar length share a batch of at most batch_size, to reduce padding; `workers`
        threads share the batches (default: one per core; one on a GPU). Padding is masked exactly,
        but other lengths sum in another order, so the last bits of a vector depend on its batch.
        With MiniLM on two cores a batch_size of 16 is a fifth faster than 64.
        progress(n) is called whenever n more texts are done.
        """
        workers = (_cores() if self.model.device == "cpu" else 1) if workers is None else workers
        for name, value in (("batch_size", batch_size), ("workers", workers)):
            check_whole(name, value, 1, MOST)
        check_function("progress", progress, or_none=True)
        tokens = self.tokens(texts, allow_special=allow_special)
        if not tokens:
            return self.encode([""])[:0]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        size = min(batch_size, -(-len(order) // (2 * workers)))  # two or more batches per thread
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        body, threads = self._body(), min(workers, len(batches))

        def embed(batch: list[int]) -> np.ndarray:
            vectors, _ = self._embed(body, self._padded([tokens[i] for i in batch]), grad=False)
            if progress is not None:
                progress(len(batch))
            return to_host(at_least_float32(vectors))

        # each thread takes a run of this list, dealt so that each has short and long texts
        dealt = [batch for first in range(threads) for batch in batches[first::threads]]
        vectors = np.concatenate(map_threads(embed, dealt, threads))
        result = np.empty_like(vectors)
        result[[i for batch in dealt for i in batch]] = vectors
        return result

    @known_arguments
    def __call__(
        self, input_ids: Any, *, grad: bool = True, **inputs: Any
    ) -> tuple[Any, Callable | None]:
        """embeddings (B, D) and backward(dembeddings) -> gradient tree of model.params.

        inputs: those of the model.
        """
        return self._embed(self._body(), {"input_ids": input_ids, **inputs}, grad=grad)

    def _body(self) -> EncoderModel:
        """The model without its head."""
        model = self.model
        make = partial(EncoderModel, model.family, model.config, model.params, device=model.device)
        return make(task="body")

    def _embed(
        self, body: EncoderModel, inputs: dict[str, Any], *, grad: bool
    ) -> tuple[Any, Callable | None]:
        """normalise(pool(hidden)); backward gives the gradient tree of params, zero for a head."""
        check_flag("grad", grad)
        key = inputs.pop("key", None)
        inputs = {name: value for name, value in body.inputs(**inputs).items() if value is not None}
        outputs, body_back = body(**inputs, grad=grad, key=key)
        hidden = outputs["hidden"]
        mask = inputs.get("attention_mask")
        ones = array_module(hidden).ones(hidden.shape[:2], dtype="bool") if mask is None else None
        pool = partial(POOLINGS[self.pooling], mask=ones if mask is None else mask != 0)
        embeddings, back = chain(hidden, pool, l2_normalise if self.normalise else None)
        if body_back is None:
            return embeddings, None
        shape, xp = embeddings.shape, array_module(embeddings)

        def backward(dembeddings: Any) -> Any:
            check_gradient("backward: dembeddings", dembeddings, shape, xp)
            return body_back({"hidden": back(dembeddings)})

        return embeddings, backward

    @property
    def _place(self) -> int:
        """Where the text's tokens go in the template."""
        return self._template.sequence_ids.index(0)

    def _padded(self, tokens: list[list[int]]) -> dict[str, np.ndarray]:
        """input_ids, attention_mask and, if the family has them, token_type_ids."""
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        shape = (len(tokens), lengths.max(initial=1))  # 1: for an empty text without special tokens
        real = np.arange(shape[1]) < lengths[:, None]
        ids = np.full(shape, self._pad_id, dtype=np.int64)
        ids[real] = [i for row in tokens for i in row]
        inputs = {"input_ids": ids, "attention_mask": real.astype(np.int64)}
        if "token_type_ids" in self.model.family.INPUTS:
            types, place, extra = self._template.type_ids, self._place, len(self._template) - 1
            before, own, after = types[:place], [types[place]], types[place + 1 :]
            rows = [before + own * (n - extra) + after + [0] * (shape[1] - n) for n in lengths]
            inputs["token_type_ids"] = np.array(rows, dtype=np.int64).reshape(shape)
        return inputs

    @property
    def _pad_id(self) -> int:
        """The tokenizer's, else the config's, else 0; RoBERTa counts positions by it."""
        named = self.model.text_tokenizer().named_id("pad_token")
        return (getattr(self.model.config, "pad_token_id", None) or 0) if named is None else named


def _template(tokenizer: Any) -> Encoding:
    """A text of one token, with the post-processor's special tokens around it."""
    one = Encoding.of([0], ["x"], [(0, 1)], [0])
    return one if tokenizer.post_processor is None else tokenizer.post_processor(one)


def _longest(model: EncoderModel) -> int:
    """The most tokens per text: the model's positions, or fewer if its tokenizer says so."""
    said = read_settings(model.files).get("model_max_length")
    limits = (model.config.context, said if is_number(said) else None)
    return min([int(limit) for limit in limits if limit is not None], default=512)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
