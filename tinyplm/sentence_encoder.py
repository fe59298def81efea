"""Sentence embeddings (Reimers & Gurevych 2019): an encoder, its hidden states pooled to one vector for a text, of length 1.

encoder = SentenceEncoder.load("folder")                     # a folder in the layout of sentence-transformers
vectors = encoder.encode(["A dog barks.", "Es regnet."])     # (2, D) float32
places, scores = nearest(encoder.encode(["weather"]), vectors, k=1)

embeddings, backward = encoder(**encoder.inputs(texts), key=0)     # fine-tuning: a component like any model
dparams = backward(dembeddings)
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .arguments import (
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
from .backend import array_module, at_least_float32, to_host
from .core import chain, map_threads
from .files import LARGEST_SETTINGS, check_links, named, read_bytes, read_json, replaced, write_json
from .hub import folders as hub
from .layers.pooling import cls_pooling, l2_normalise, max_pooling, mean_pooling
from .models.checks import check_gradient
from .models.encoder_model import EncoderModel
from .tokenizers.files.settings import read_settings
from .tokenizers.text.encoding import Encoding

POOLINGS: dict[str, Callable] = {
    "mean": mean_pooling,
    "cls": lambda x, *, mask: cls_pooling(x),
    "max": max_pooling,
}


class SentenceEncoder:
    """An encoder of any family with a tokenizer, and how its hidden states become one vector.

    model       an EncoderModel; of its parameters only the body takes part
    pooling     "mean" or "max" over all tokens, [CLS] and [SEP] too, or "cls": the first token's
    normalise   whether vectors get length 1
    max_length  tokens that are read of a text, special ones included; by default as many as the model and its tokenizer know
    lowercase   whether texts become lower case before the tokenizer sees them, which then finds no "[SEP]" in them either
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
            raise TypeError(f"model: sentence embeddings need an encoder, got {shown(model)}")
        check_choice("pooling", pooling, POOLINGS)
        check_flag("normalise", normalise)
        check_flag("lowercase", lowercase)
        self.model, self.pooling, self.normalise, self.lowercase = (
            model,
            pooling,
            normalise,
            lowercase,
        )
        self._template = _template(model.text_tokenizer())
        self.max_length = _longest(model) if max_length is None else max_length
        least, most = len(self._template), model.config.context
        if (
            type(self.max_length) is not int
            or self.max_length < least
            or (most is not None and self.max_length > most)
        ):
            raise wrong(
                "max_length",
                f"an integer from {least} (one token and the special ones) to {most} (the positions that "
                "the model has)",
                self.max_length,
            )
        self.notes: bytes | None = None  # config_sentence_transformers.json as it was read

    def __repr__(self) -> str:
        normalised = ", normalised" if self.normalise else ""
        return f"<SentenceEncoder of {self.model!r}: {self.pooling}{normalised}, {self.max_length} tokens>"

    # ---- files

    @classmethod
    @known_arguments
    def load(
        cls, folder: str | os.PathLike, *, dtype: str | None = None, device: str = "cpu"
    ) -> SentenceEncoder:
        """From a folder that sentence-transformers wrote: a Transformer, a Pooling and perhaps a Normalize module.

        ValueError that names what is not supported: other modules, other ways to pool, a prompt before every text.  The limit on
        tokens is the file's, but never beyond the model's positions.  dtype, device: see tinyplm.load.
        """
        check_path("folder", folder)
        folder = Path(folder)
        names, paths = _modules(folder)
        model = hub.load(folder / paths[0], dtype=dtype, device=device)
        settings = _transformer_settings(folder / paths[0], model)
        limit = settings.get("max_seq_length")
        if limit is not None and model.config.context is not None:
            limit = min(limit, model.config.context)
        pooling = _pooling(folder / paths[1] / "config.json")
        try:
            encoder = cls(
                model,
                pooling,
                normalise="Normalize" in names,
                max_length=limit,
                lowercase=bool(settings.get("do_lower_case")),
            )
        except ValueError as error:
            raise ValueError(f"{named(folder)}: {error}") from None
        notes = folder / _NOTES
        if notes.exists():
            _refuse(
                notes, _object(notes), default_prompt_name=None, model_type="SentenceTransformer"
            )
            encoder.notes = read_bytes(notes)
        return encoder

    @known_arguments
    def save(self, folder: str | os.PathLike, *, dtype: str | None = None) -> None:
        """Write what `load` reads, and sentence-transformers: the model's files (see tinyplm.save) and those of its modules."""
        check_path("folder", folder)
        folder = Path(folder)
        hub.save(self.model, folder, dtype=dtype)
        (folder / "1_Pooling").mkdir(exist_ok=True)
        width = self.encode([]).shape[1]
        write_json(
            folder / "1_Pooling" / "config.json",
            {"word_embedding_dimension": width}
            | {key: mode == self.pooling for key, mode in _POOLING_KEYS.items()},
        )
        write_json(
            folder / "sentence_bert_config.json",
            {"max_seq_length": self.max_length, "do_lower_case": self.lowercase},
        )
        if self.notes is not None:
            with replaced(folder / _NOTES) as temporary:
                temporary.write_bytes(self.notes)
        modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")][
            : 3 if self.normalise else 2
        ]
        write_json(
            folder / "modules.json",
            [
                {
                    "idx": i,
                    "name": str(i),
                    "path": path,
                    "type": f"sentence_transformers.models.{kind}",
                }
                for i, (path, kind) in enumerate(modules)
            ],
        )

    # ---- texts to vectors

    @known_arguments
    def tokens(self, texts: Iterable[str], *, allow_special: bool = False) -> list[list[int]]:
        """The ids of each text, special tokens around it; what is beyond max_length is cut off at the end.

        White space around a text goes, as in sentence-transformers.  allow_special: whether "[SEP]" in a text is the special
        token, as it always is there, or what it says.
        """
        if isinstance(texts, str):
            raise TypeError("texts: expected a list of strings, got a single one")
        texts = listed("texts", texts, "a list of strings")
        check_flag("allow_special", allow_special)
        tokenizer, room = self.model.text_tokenizer(), self.max_length - len(self._template) + 1
        place, around = self._place, self._template.ids
        result = []
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts: expected strings, got {shown(text)} as number {number}")
            text = text.lower() if self.lowercase else text
            result.append(
                around[:place]
                + tokenizer.encode(text.strip(), allow_special)[:room]
                + around[place + 1 :]
            )
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
        """(N, D), a vector for each text, on the host, in the model's dtype but at least float32.

        Texts of similar lengths share a batch, so that little is padded; `workers` threads share the batches (default: one a
        core, and one on a GPU).  Padding is masked out exactly, but sums are formed in another order for other lengths, so the
        last bits of a vector depend on what is in its batch.  batch_size: the most; with MiniLM on two cores 16 is a fifth faster
        than 64.
        progress(n): called whenever n texts more are done.
        """
        workers = (_cores() if self.model.device == "cpu" else 1) if workers is None else workers
        for name, value in (("batch_size", batch_size), ("workers", workers)):
            check_whole(name, value, 1, MOST)
        check_function("progress", progress, or_none=True)
        tokens = self.tokens(texts, allow_special=allow_special)
        if not tokens:
            return self.encode([""])[:0]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        size = min(
            batch_size, -(-len(order) // (2 * workers))
        )  # of few texts, too, each thread has short ones and long ones
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        body, threads = self._body(), min(workers, len(batches))

        def embed(batch: list[int]) -> np.ndarray:
            vectors, _ = self._embed(body, self._padded([tokens[i] for i in batch]), grad=False)
            if progress is not None:
                progress(len(batch))
            return to_host(at_least_float32(vectors))

        # a thread takes a run of the list; dealt out like this, each has short texts and long ones
        dealt = [batch for first in range(threads) for batch in batches[first::threads]]
        vectors = np.concatenate(map_threads(embed, dealt, threads))
        result = np.empty_like(vectors)
        result[[i for batch in dealt for i in batch]] = vectors
        return result

    @known_arguments
    def __call__(
        self, input_ids: Any, *, grad: bool = True, **inputs: Any
    ) -> tuple[Any, Callable | None]:
        """embeddings (B, D) and backward(dembeddings) -> the gradient tree of model.params; inputs: as for the model."""
        return self._embed(self._body(), {"input_ids": input_ids, **inputs}, grad=grad)

    def _body(self) -> EncoderModel:
        """The model without what its head computes."""
        model = self.model
        return EncoderModel(
            model.family, model.config, model.params, task="body", device=model.device
        )

    def _embed(
        self, body: EncoderModel, inputs: dict[str, Any], *, grad: bool
    ) -> tuple[Any, Callable | None]:
        """normalise(pool(hidden)); backward gives the gradient tree of the parameters, zero for a head."""
        check_flag("grad", grad)
        key = inputs.pop("key", None)
        inputs = {name: value for name, value in body.inputs(**inputs).items() if value is not None}
        outputs, body_back = body(**inputs, grad=grad, key=key)
        hidden = outputs["hidden"]
        mask = inputs.get("attention_mask")
        real = (
            array_module(hidden).ones(hidden.shape[:2], dtype="bool") if mask is None else mask != 0
        )
        embeddings, back = chain(
            hidden,
            partial(POOLINGS[self.pooling], mask=real),
            l2_normalise if self.normalise else None,
        )
        shape, xp = embeddings.shape, array_module(embeddings)

        def backward(dembeddings):
            check_gradient("backward: dembeddings", dembeddings, shape, xp)
            return body_back({"hidden": back(dembeddings)})

        return embeddings, backward if grad else None

    @property
    def _place(self) -> int:
        return self._template.sequence_ids.index(0)

    def _padded(self, tokens: list[list[int]]) -> dict[str, np.ndarray]:
        """input_ids, attention_mask and, where the family has them, token_type_ids."""
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        shape = (
            len(tokens),
            lengths.max(initial=1),
        )  # 1: without special tokens an empty text has none
        real = np.arange(shape[1]) < lengths[:, None]
        ids = np.full(shape, self._pad_id, dtype=np.int64)
        ids[real] = (
            np.concatenate([np.asarray(row, dtype=np.int64) for row in tokens]) if tokens else []
        )
        inputs = {"input_ids": ids, "attention_mask": real.astype(np.int64)}
        if "token_type_ids" in self.model.family.INPUTS:
            types, place, extra = self._template.type_ids, self._place, len(self._template) - 1
            rows = [
                types[:place]
                + [types[place]] * (n - extra)
                + types[place + 1 :]
                + [0] * (shape[1] - n)
                for n in lengths
            ]
            inputs["token_type_ids"] = np.array(rows, dtype=np.int64).reshape(shape)
        return inputs

    @property
    def _pad_id(self) -> int:
        """Of the tokenizer, else of the config, else 0: padding is masked out, only positions may be counted by it (RoBERTa)."""
        named = self.model.text_tokenizer().named_id("pad_token")
        return (getattr(self.model.config, "pad_token_id", None) or 0) if named is None else named


def _template(tokenizer: Any) -> Encoding:
    """A text of one token, with what the tokenizer's post-processor puts around it."""
    one = Encoding.of([0], ["x"], [(0, 1)], [0])
    return one if tokenizer.post_processor is None else tokenizer.post_processor(one)


def _longest(model: EncoderModel) -> int:
    """How many tokens a text may have: positions of the model, or fewer if its tokenizer says so."""
    said = read_settings(model.files).get("model_max_length")
    limits = [
        limit
        for limit in (model.config.context, said if is_number(said) else None)
        if limit is not None
    ]
    return min([int(limit) for limit in limits], default=512)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ------------------------------------------------------------------------------------------------- similarity


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (N, D), b (M, D) -> (N, M): a_n . b_m / (|a_n| |b_m|), 0 where either is zero."""
    for name, vectors in (("a", a), ("b", b)):
        if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
            raise wrong(
                f"cosine_similarity: {name}", "an array of floats with 2 dimensions", vectors
            )
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"cosine_similarity: expected a (N, D) and b (M, D), got {a.shape} and {b.shape}"
        )
    return l2_normalise(a)[0] @ l2_normalise(b)[0].T


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """The k vectors (M, D) with the highest cosine to each query (N, D), all of them if there are fewer.

    -> places (N, k) among the vectors and scores (N, k), the best first, equal ones in the order of the vectors.
    """
    check_whole("k", k, 1)
    for name, a in (("queries", queries), ("vectors", vectors)):
        if not isinstance(a, np.ndarray) or a.ndim != 2 or a.dtype.kind != "f":
            raise wrong(name, "an array of floats with 2 dimensions", a)
    if queries.shape[1] != vectors.shape[1]:
        raise wrong("vectors", f"vectors of width {queries.shape[1]}, as the queries'", vectors)
    places, scores = [], []
    for block in np.array_split(
        queries, max(1, len(queries) // 256)
    ):  # the whole (N, M) may be large
        similarity = cosine_similarity(block, vectors)
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        places.append(best)
        scores.append(np.take_along_axis(similarity, best, axis=1))
    return np.concatenate(places), np.concatenate(scores)


# ------------------------------------------------------------------------------------------------- sentence-transformers' files

_NOTES = "config_sentence_transformers.json"
_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Version 5.4 has longer module names, pooling_mode in place of the flags, and says what it takes from the model.
_TAKEN = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
_TAKEN_OF_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}


def _modules(folder: Path) -> tuple[list[str], list[str]]:
    """(class, path) of the modules: Transformer, Pooling and perhaps Normalize."""
    file = folder / "modules.json"
    if not file.exists():
        raise ValueError(
            f"{file}: no such file; for a model of another layout: SentenceEncoder(tinyplm.load(folder), pooling)"
        )
    check_links(folder, (file.name,))
    modules = read_json(file, largest=LARGEST_SETTINGS)
    if not isinstance(modules, list) or not all(
        isinstance(m, dict) and {"type", "path"} <= m.keys() for m in modules
    ):
        raise ValueError(f"{file}: expected a list of objects with type and path")
    names = [named(module["type"], 80) for module in modules][:5]
    kinds = [
        name.rpartition(".")[2] if name.startswith("sentence_transformers.") else name
        for name in names
    ]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        given = ", ".join(kinds)
        raise ValueError(
            f"{file}: modules {given} are not supported; expected Transformer, Pooling and perhaps Normalize"
        )
    paths = [str(module["path"]) for module in modules]
    for path in paths:
        if re.search(r"[/\\:\0]", path) or path == "..":
            raise ValueError(
                f"{named(file)}: {shown(path)} points outside the folder, expected the name of a folder in it"
            )
        if len(path) > 255:
            raise ValueError(
                f"{named(file)}: path: expected the name of a folder, got {shown(path)}"
            )
    check_links(folder, paths)
    return kinds, paths


def _transformer_settings(folder: Path, model: EncoderModel) -> dict[str, Any]:
    """max_seq_length and do_lower_case; older versions put the family's name into the file's."""
    files = sorted(folder.glob("sentence_*_config.json"))
    settings = _object(files[0]) if files else {}
    if files:
        try:
            check_whole("max_seq_length", settings.get("max_seq_length"), 1, or_none=True)
        except ValueError as error:
            raise ValueError(f"{named(files[0])}: {error}") from None
        known = {"max_seq_length", "do_lower_case", "modality_config", *_TAKEN}
        _refuse(files[0], settings, **_TAKEN, **dict.fromkeys(settings.keys() - known))
        modalities = settings.get("modality_config", {})
        text = (
            modalities.get("text", _TAKEN_OF_TEXT) if isinstance(modalities, dict) else modalities
        )
        if text != _TAKEN_OF_TEXT:
            raise ValueError(
                f"{named(files[0])}: modality_config.text = {shown(text)} is not supported"
            )
    _refuse(
        folder / "tokenizer_config.json",
        read_settings(model.files, str(folder)),
        truncation_side="right",
    )
    return settings


def _pooling(file: Path) -> str:
    """The one way to pool that the file names."""
    settings = _object(file)
    _refuse(file, settings, include_prompt=True)
    modes = (
        settings.get("pooling_mode")
        or [mode for key, mode in _POOLING_KEYS.items() if settings.get(key)]
        or ["mean"]
    )
    modes = modes if isinstance(modes, list) else [modes]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in POOLINGS:
        given = named(" and ".join(map(str, modes)), 80)
        raise ValueError(
            f"{named(file)}: pooling by {given} is not supported; expected one of {', '.join(POOLINGS)}"
        )
    return modes[0]


def _object(file: Path) -> dict[str, Any]:
    check_links(file.parent, (file.name,))
    settings = read_json(file, largest=LARGEST_SETTINGS)
    if not isinstance(settings, dict):
        raise ValueError(f"{named(file)}: expected an object, got {shown(settings)}")
    return settings


def _refuse(file: Path, settings: Mapping[str, Any], **supported: Any) -> None:
    """ValueError naming the first key that says something and is not at the one value that is supported."""
    for key, value in supported.items():
        if settings.get(key) not in (None, value) and (value is not None or settings[key]):
            raise ValueError(f"{named(file)}: {key} = {shown(settings[key])} is not supported")
