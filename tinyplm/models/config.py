"""Reading and writing config.json; a family's Config is a frozen dataclass of the hub's fields."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, get_args, get_origin, get_type_hints

from ..arguments import is_number, listed, shown, wrong

# The largest integer that a field may hold; the first pattern that its name matches counts.  No
# model has larger ones, and it would take minutes or all memory to find that out.
LIMITS = (
    ("layer|group", 10_000),
    ("vocab|position|buckets|_id$|_len$", 2**31 - 1),
    ("", 2**20),
)


class Schema(Protocol):
    """A family's Config, as reading and writing need it."""

    MODEL_TYPE: ClassVar[str]
    ALIASES: ClassVar[dict[str, str]]  # other spellings of a field that transformers accepts
    QUANTIZED: ClassVar[tuple[str, ...]]  # which quant_methods its files may have; may be missing
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init__(self, **fields: Any) -> None: ...


def from_dict(cls: type[Schema], source: dict[str, Any]) -> Any:
    """The config of class cls from the contents of a config.json.

    Unknown keys are kept in `source` and written back.  ValueError for two spellings of a field
    that differ, and for quantized weights, except by the methods in cls.QUANTIZED: what describes
    those is left out, since hub/ dequantises them.
    """
    if quantization_of(cls, source) is not None:
        source = {name: value for name, value in source.items() if name != "quantization_config"}
    names = {f.name for f in dataclasses.fields(cls)} - {"source"}
    values = {name: value for name, value in source.items() if name in names}
    for alias, name in cls.ALIASES.items():
        if alias in source and values.setdefault(name, source[alias]) != source[alias]:
            expected = f"{shown(values[name])}, the value of its synonym {name}"
            raise wrong(f"config: {alias}", expected, source[alias])
    return cls(**values, source=dict(source))


def quantization_of(cls: type[Schema], source: Mapping[str, Any]) -> str | None:
    """The quant_method of a config.json; ValueError unless the family reads it, or it has none."""
    quantization = source.get("quantization_config")
    if quantization is None:
        return None
    methods = getattr(cls, "QUANTIZED", ())
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    if method not in methods:
        known = "".join(f", or quant_method {method}" for method in methods)
        expected = f"a model without quantization{known}"
        raise wrong("config: quantization_config", expected, quantization)
    return method


def to_dict(config: Any) -> dict[str, Any]:
    """The contents of a config.json: what was read, with the current values of the fields.

    Reading and writing is the identity: a field that the file lacked is written only if it is not
    at its default, and an unused spelling of older files (cls.OLD) is not written at all.  Of two
    spellings (cls.ALIASES), the file keeps its own.
    """
    out = dict(config.source)
    old = getattr(config, "OLD", ())
    spelt = {name for alias, name in type(config).ALIASES.items() if alias in out}
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        if name == "source" or (name in old and value is None and name not in out):
            continue
        if name in out or not config.source or (value != field.default and name not in spelt):
            out[name] = value
    for alias, name in type(config).ALIASES.items():
        if alias in out:
            out[alias] = getattr(config, name)
    if "num_labels" in out and out.get("id2label") is not None:
        out["num_labels"] = len(out["id2label"])  # transformers trusts the number
    return {"model_type": file_type(type(config)), **out}


def file_type(cls: type[Schema]) -> str:
    """The model_type that config.json has: cls.FILE_TYPE of a family that shares another one's."""
    return getattr(cls, "FILE_TYPE", cls.MODEL_TYPE)


# ----------------------------------------------------------------------------------------- checks


def check_types(config: Any) -> None:
    """ValueError naming the first field of another type than annotated, not finite, or too large.

    An integer may stand for a float.  A boolean is not a number.  LIMITS has the largest integers.
    """
    kind: Any = type(config)
    annotations = _type_hints(kind)
    for field in dataclasses.fields(config):
        name, value, annotation = field.name, getattr(config, field.name), annotations[field.name]
        if name == "source":
            continue
        if not _fits(value, annotation):
            raise wrong(f"config: {name}", str(field.type), value)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and float in (annotation, *get_args(annotation)):
                if not is_number(number) and not isinstance(number, bool):
                    raise wrong(f"config: {name}", "a finite number", number)
            elif isinstance(number, int) and abs(number) > (most := limit(name)):
                raise wrong(f"config: {name}", f"an integer of at most {most}", number)


_type_hints = functools.cache(get_type_hints)  # which compiles each annotation anew


@functools.cache
def limit(name: str) -> int:
    """The largest integer that a field of this name may hold."""
    return next(most for pattern, most in LIMITS if re.search(pattern, name))


def _fits(value: Any, annotation: Any) -> bool:
    if isinstance(annotation, types.UnionType):
        return any(_fits(value, choice) for choice in get_args(annotation))
    if get_origin(annotation) is list:
        return isinstance(value, list) and all(_fits(item, *get_args(annotation)) for item in value)
    if isinstance(value, bool):
        return annotation is bool
    return isinstance(value, (int, float) if annotation is float else annotation)


def check_positive(config: Any, *names: str) -> None:
    """ValueError naming the first of these fields (integers or None) that is not positive."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise wrong(f"config: {name}", "a positive integer", value)


def check_not_negative(config: Any, *names: str) -> None:
    """ValueError naming the first of these fields that is not a finite number >= 0."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < math.inf:
            raise wrong(f"config: {name}", "a finite number >= 0", value)


def check_rates(config: Any, *names: str) -> None:
    """ValueError naming the first of these fields that is not a dropout rate in [0, 1) or None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 <= value < 1:
            raise wrong(f"config: {name}", "a number in [0, 1)", value)


def check_known(config: Any, name: str, choices: Iterable[str]) -> None:
    """ValueError unless the field is one of the choices."""
    value = getattr(config, name)
    if value not in choices:
        raise wrong(f"config: {name}", f"one of {', '.join(sorted(choices))}", value)


def check_heads(config: Any, width: str, heads: str) -> None:
    """ValueError unless the width is a multiple of the number of heads."""
    D, H = getattr(config, width), getattr(config, heads)
    if D % H:
        raise wrong(f"config: {width}", f"a multiple of {heads} = {H}", D)


def check_only(config: Any, **fields: tuple) -> None:
    """ValueError naming the first field with an unsupported value: it changes the computation."""
    for name, values in fields.items():
        value = getattr(config, name)
        if value not in values:
            expected = " or ".join(shown(value) for value in values)
            raise wrong(f"config: {name}", f"{expected} for {config.MODEL_TYPE}", value)


def check_encoder(
    config: Any, *, sizes: Iterable[str], rates: Iterable[str], **only: tuple
) -> None:
    """The checks that all encoders share.

    sizes: fields that are positive; rates: dropout rates; only: see check_only.
    """
    check_types(config)
    check_positive(config, *sizes)
    check_rates(config, *rates)
    check_not_negative(config, "layer_norm_eps", "initializer_range")
    check_labels(config)
    check_only(config, **only)


# -------------------------------------------------------------------------- labels of a classifier


@dataclasses.dataclass(frozen=True)
class ScoreLabels:
    """The fields of a decoder's config that describe a score head; not written where None."""

    SCORED: ClassVar[str]  # transformers' class with such a head
    CHOOSING: ClassVar[str | None] = None  # its class with one number a choice, if there is one

    id2label: dict | None = None
    label2id: dict | None = None
    problem_type: str | None = None

    @property
    def num_labels(self) -> int:
        return label_count(self)

    def for_decoding(self) -> Any:
        """The config of LanguageModel.for_decoding, whose head holds the output matrix itself."""
        return dataclasses.replace(self, tie_word_embeddings=False)  # type: ignore[call-arg]

    @property
    def score_rate(self) -> float:
        """The rate of the dropout before a score head."""
        return 0.0

    @property
    def position_rows(self) -> int | None:
        """The rows of each table of positions, where a token has two; None where it has one."""
        return None

    @property
    def reads_places(self) -> bool:
        """Whether positions and prefix are read off the ids (the family's `placed`)."""
        return False

    @property
    def logit_cap(self) -> float | None:
        """The cap of the logits over the vocabulary (layers.activation.soft_cap), if any."""
        return None


LABELS = ("id2label", "label2id", "problem_type")  # not written where they are None
PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")


def labels(names: Iterable[str]) -> dict[str, dict]:
    """The fields id2label and label2id: create("bert", task=..., **labels(["bad", "good"]))."""
    names = listed("labels", names, "a list of strings")
    texts = all(isinstance(name, str) for name in names)
    if not names or not texts or len(set(names)) != len(names):
        raise wrong("labels", "different strings, at least one", names)
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def label_count(config: Any) -> int:
    """The number of labels: of id2label, else the file's num_labels, else 2, as in transformers."""
    if config.id2label is not None:
        return len(config.id2label)
    return config.source.get("num_labels", 2)


def for_task(config: Any, task: str) -> Any:
    """The config to write for a task: for question answering one without labels.

    transformers gives that head one output per label, and accepts only two.
    """
    if task != "question_answering" or label_count(config) == 2:
        return config
    labelled = ("id2label", "label2id", "num_labels")
    source = {name: value for name, value in config.source.items() if name not in labelled}
    return dataclasses.replace(config, id2label=None, label2id=None, source=source)


def check_labels(config: Any) -> None:
    """ValueError unless id2label numbers the labels from 0 and problem_type is known."""
    given = config.id2label
    if given is not None:
        numbers = {str(i) for i in range(len(given) or 1)}
        if {str(i) for i in given} != numbers:
            raise wrong("config: id2label", "labels numbered from 0", given)
    if config.problem_type is not None:
        check_known(config, "problem_type", PROBLEMS)
    count, most = label_count(config), limit("num_labels")
    if type(count) is not int or not 1 <= count <= most:
        raise wrong("config: num_labels", f"an integer from 1 to {most}", count)
