"""The options of sampling, and models that write text."""

from __future__ import annotations

import argparse
import re
from typing import Any, cast

import numpy as np

from ..generation.state import check_generates
from ..models.language_model import LanguageModel
from ..tokenizers import Tokenizer
from .folders import config_option, device_options
from .models import model_option, open_model
from .parser import Parser, number, whole


def sampling_options(parser: Parser) -> None:
    """--model and how it samples."""
    parser.section("model")
    model_option(parser)
    device_options(parser)
    parser.section("sampling")
    parser.option(
        "--temperature",
        0.8,
        "Sampling temperature; 0 always takes the most probable token.",
        number(least=0.0),
    )
    parser.option(
        "--top-k", None, "Sample from the N most probable tokens only.", whole(1), shown="from all"
    )
    parser.option(
        "--top-p",
        0.95,
        "Sample from the most probable tokens that make up this probability.",
        number(above=0.0, most=1.0),
    )
    parser.option(
        "--min-p",
        None,
        "Sample from tokens with at least this fraction of the highest probability.",
        number(least=0.0, most=1.0),
        shown="from all",
    )
    parser.option(
        "--repetition-penalty",
        1.0,
        "Values above 1 make tokens that have occurred less probable.",
        number(above=0.0),
    )
    parser.option(
        "--no-repeat-ngram",
        None,
        "Never repeat a sequence of N tokens.",
        whole(1),
        shown="no limit",
    )
    parser.option("--seed", 0, "Random seed; the same seed gives the same texts.", whole())
    config_option(parser)


def sampling(options: argparse.Namespace) -> dict:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram")
    return {name: getattr(options, name) for name in names}


def open_writer(
    name: str, options: argparse.Namespace, *, option: str = "model", task: str | None = None
) -> LanguageModel:
    """The model of a folder or run, laid out for decoding; ValueError if it cannot write text."""
    model = open_model(name, options, option=f"--{option}", task=task)
    check_generates(option, model)
    return cast(LanguageModel, model).for_decoding()


def beginnings(
    tokens: np.ndarray, tokenizer: Tokenizer, count: int, most: int, words: int = 12
) -> list[tuple[str, list[int]]]:
    """(text, ids) of the first words of documents, at most `most` tokens; spread over the packed
    tokens, in which an end-of-text token, the first of the ids, precedes each document."""
    end: Any = tokenizer.eos_id
    starts = np.flatnonzero(np.asarray(tokens[:-1]) == end)
    starts = starts if len(starts) else np.array([-1])  # packed by something else
    found = []
    for start in starts[np.arange(count) * len(starts) // max(count, 1)]:
        text = tokenizer.decode(tokens[start + 1 : start + 10 * words].tolist())
        ids = tokenizer.encode("".join(re.findall(r"\s*\S+", text)[:words]))[: max(most - 1, 0)]
        found.append((tokenizer.decode(ids), [end, *ids]))
    return found
