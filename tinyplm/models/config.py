"""Reading and writing config.json: a frozen dataclass a family, whose field names are the hub's."""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Iterable
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from ..arguments import is_number, listed, shown, wrong

# The largest integer that a field may be, by its name; the first that fits.  What is larger can be no model, and would take
# minutes, or all memory, until that is found.
LIMITS = (("layer|group", 10_000), ("vocab|position|buckets|_id$|_len$", 2**31 - 1), ("", 2**20))


def from_dict(cls: type, source: dict[str, Any]) -> Any:
    """The config of class cls from the contents of a config.json.

    Unknown keys are kept in `source` and written back.  cls.ALIASES names other spellings of a field that transformers takes as
    well; ValueError where the two differ, and for quantized weights.
    """
    if source.get("quantization_config") is not None:
        raise ValueError(
            "quantization_config is not supported: expected a model that is not quantized"
        )
    names = {f.name for f in dataclasses.fields(cls)} - {"source"}
    values = {name: value for name, value in source.items() if name in names}
    for alias, name in cls.ALIASES.items():
        if alias in source and values.setdefault(name, source[alias]) != source[alias]:
            raise ValueError(
                f"{alias} is {shown(source[alias])}, but {name}, which means the same, is {shown(values[name])}"
            )
    return cls(**values, source=dict(source))


def to_dict(config: Any) -> dict[str, Any]:
    """The contents of a config.json: what was read, with the fields as they are now.

    A field that the file did not have and that is at its default is not added, so that reading and writing is the identity;
    nor is an unused spelling of older files (cls.OLD).
    """
    out = dict(config.source)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "source" or (
            field.name in getattr(config, "OLD", ()) and value is None and field.name not in out
        ):
            continue
        if field.name in out or not config.source or value != field.default:
            out[field.name] = value
    for alias, name in type(config).ALIASES.items():
        if alias in out:
            out[alias] = getattr(config, name)
    if (
        "num_labels" in out and out.get("id2label") is not None
    ):  # of the two, transformers believes the number
        out["num_labels"] = len(out["id2label"])
    return {"model_type": type(config).MODEL_TYPE, **out}


def check_types(config: Any) -> None:
    """ValueError naming the first field whose value is not of its annotated type, or a number that is not finite or is beyond
    LIMITS.

    A JSON number without a fraction may stand for a float; true and false are no numbers.
    """
    annotations = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, annotation = getattr(config, field.name), annotations[field.name]
        if field.name == "source":
            continue
        if not _fits(value, annotation):
            raise ValueError(f"config: {field.name} must be {field.type}, got {shown(value)}")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and float in (annotation, *get_args(annotation)):
                if not is_number(number) and not isinstance(number, bool):
                    raise ValueError(
                        f"config: {field.name} must be a finite number, got {shown(number)}"
                    )
            elif isinstance(number, int) and abs(number) > (most := limit(field.name)):
                raise ValueError(
                    f"config: {field.name} must be an integer of at most {most}, got {shown(number)}"
                )


def limit(name: str) -> int:
    """The largest integer that a field of this name may be."""
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
    """ValueError naming the first of these fields, integers or None, that is not positive."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"config: {name} must be a positive integer, got {shown(value)}")


def check_not_negative(config: Any, *names: str) -> None:
    """ValueError naming the first of these fields that is not a finite number >= 0."""
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ValueError(
                f"config: {name} must be finite and >= 0, got {shown(getattr(config, name))}"
            )


def check_rates(config: Any, *names: str) -> None:
    """ValueError naming the first of these fields that is neither a dropout rate in [0, 1) nor None."""
    for name in names:
        if getattr(config, name) is not None and not 0 <= getattr(config, name) < 1:
            raise ValueError(
                f"config: {name} must be in [0, 1), got {shown(getattr(config, name))}"
            )


def check_known(config: Any, name: str, choices: Iterable[str]) -> None:
    """ValueError unless the field is one of the choices."""
    if getattr(config, name) not in choices:
        raise ValueError(
            f"config: unknown {name} {shown(getattr(config, name))}; expected one of {', '.join(sorted(choices))}"
        )


def check_heads(config: Any, width: str, heads: str) -> None:
    """ValueError unless the width is a multiple of the number of heads."""
    if getattr(config, width) % getattr(config, heads):
        raise ValueError(
            f"config: {width} {getattr(config, width)} is not a multiple of {heads} {getattr(config, heads)}"
        )


def check_only(config: Any, **fields: tuple) -> None:
    """ValueError naming the first field whose value is none of those given: any other would change what is computed."""
    for name, values in fields.items():
        if getattr(config, name) not in values:
            raise ValueError(
                f"config: {name} = {shown(getattr(config, name))} is not supported for {config.MODEL_TYPE}"
            )


# ------------------------------------------------------------------------------------------------- labels of a classifier


@dataclasses.dataclass(frozen=True)
class ScoreLabels:
    """The fields of a decoder's config that describe a score head; where they are None they are not written."""

    SCORED: ClassVar[str]  # transformers' class with such a head

    id2label: dict | None = None
    label2id: dict | None = None
    problem_type: str | None = None

    @property
    def num_labels(self) -> int:
        return label_count(self)


LABELS = ("id2label", "label2id", "problem_type")  # not written where they are None
PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")


def labels(names: Iterable[str]) -> dict[str, dict]:
    """The fields id2label and label2id for these names: create("bert", task=..., **labels(["bad", "good"]))."""
    names = listed("labels", names, "a list of strings")
    if (
        not all(isinstance(name, str) for name in names)
        or len(set(names)) != len(names)
        or not names
    ):
        raise wrong("labels", "different strings, at least one", names)
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def label_count(config: Any) -> int:
    """How many labels there are: those of id2label, else num_labels of the file, else 2, as in transformers."""
    if config.id2label is not None:
        return len(config.id2label)
    return config.source.get("num_labels", 2)


def for_task(config: Any, task: str) -> Any:
    """The config that a file of this task has: without labels where an answer's ends are asked for, since transformers gives that
    head one output a label, and can read two only."""
    if task != "question_answering" or label_count(config) == 2:
        return config
    source = {
        name: value
        for name, value in config.source.items()
        if name not in ("id2label", "label2id", "num_labels")
    }
    return dataclasses.replace(config, id2label=None, label2id=None, source=source)


def check_labels(config: Any) -> None:
    """ValueError unless id2label numbers the labels from 0 on, and problem_type is one that there is."""
    if config.id2label is not None and {str(i) for i in config.id2label} != {
        str(i) for i in range(len(config.id2label) or 1)
    }:
        raise ValueError(
            f"config: id2label must number the labels from 0 on, got {shown(config.id2label)}"
        )
    if config.problem_type is not None:
        check_known(config, "problem_type", PROBLEMS)
    if type(count := label_count(config)) is not int or not 1 <= count <= limit("num_labels"):
        raise ValueError(
            f"config: num_labels must be an integer from 1 to {limit('num_labels')}, got {shown(count)}"
        )


def check_encoder(
    config: Any, *, sizes: Iterable[str], rates: Iterable[str], **only: tuple
) -> None:
    """All checks that encoders share: types, positive sizes, dropout rates, labels, and fields that may have some values only."""
    check_types(config)
    check_positive(config, *sizes)
    check_rates(config, *rates)
    check_not_negative(config, "layer_norm_eps", "initializer_range")
    check_labels(config)
    check_only(config, **only)
