"""Benchmarks give the numbers that lm-evaluation-harness 0.4.13 gave, which lm_eval.json keeps."""

from __future__ import annotations

import json

import pytest

from tests.evaluation.lm_eval_cases import CASES, GOLDEN, check_same, decoder, ours
from tinyplm.evaluation.requests import Asker


@pytest.fixture(scope="module")
def ask():
    return Asker(decoder(), batch=4)


@pytest.mark.parametrize("name", CASES)
def test_same_numbers(name, ask, tmp_path):
    """Prompts, log-likelihoods, generated texts, metrics and standard errors."""
    check_same(ours(ask, CASES[name], tmp_path), json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"][name])
