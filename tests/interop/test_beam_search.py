# ruff: noqa: E402 - imports follow importorskip
"""Beam search against transformers: ids and scores of all results, in float64 (pair.float64), so rounding decides no rank."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.interop.pair import as_torch, pair
from tests.interop.test_generation import PROMPTS, UNTIED, padded
from tinyplm.generation import beam_search, generate

pytestmark = pytest.mark.usefixtures("in_float64")

MODELS = {
    "gpt2": {"n_positions": 40},
    "llama": {"max_position_embeddings": 40},
    "bloom": {"seed": 1, **UNTIED},
    "mistral": {"max_position_embeddings": 40, "sliding_window": 4},
    "gemma2": {"max_position_embeddings": 40, "sliding_window": 3, **UNTIED},
}
each_model = pytest.mark.parametrize("name", MODELS)
THEIR_NAMES = {
    "beams": "num_beams", "results": "num_return_sequences", "no_repeat_ngram": "no_repeat_ngram_size",
    "stop_ids": "eos_token_id", "forced_first": "forced_bos_token_id", "forced_last": "forced_eos_token_id",
}  # fmt: skip
# Scores are sums of up to 33 log-probabilities, each off by 1e-13 or less, times at most 33 with a penalty of -1.
TOLERANCE = 1e-9


def theirs_of(theirs, prompts, **options):
    """(score, new ids up to and including the first stop token) of every result, all prompts in one batch."""
    ids, mask = padded(prompts)
    options = {THEIR_NAMES.get(name, name): value for name, value in options.items()}
    stops = options["eos_token_id"] = options.get("eos_token_id") or None
    out = theirs.generate(**as_torch(inputs=ids, attention_mask=mask), do_sample=False, pad_token_id=0, output_scores=True,
                          return_dict_in_generate=True, **options)  # fmt: skip
    texts = out.sequences[:, ids.shape[1] :].tolist()
    if stops is not None:
        ends = [next((i for i, token in enumerate(text) if token in stops), len(text)) for text in texts]
        texts = [text[: end + 1] for text, end in zip(texts, ends)]
    return list(zip(out.sequences_scores.tolist(), texts))


def assert_equal(theirs, ours, prompts, **options):
    """Compares all results and returns ours.  Their texts end with the stop token."""
    found = beam_search(ours, prompts, **options)
    expected = theirs_of(theirs, prompts, **options)
    assert len(found) == len(expected) == len(prompts) * options["results"]
    for one, (score, ids) in zip(found, expected):
        stops = options.get("stop_ids") or ()
        assert one.ids == ids[: len(ids) - (one.finished == "stop")]
        assert (ids[-1] in stops) == (one.finished == "stop")
        assert abs(one.score - score) < TOLERANCE * max(1, abs(score))
    return found


def stops_of(ours):
    """Two tokens that the model likes to say, so that texts end at different times."""
    texts = [c.ids for c in generate(ours, PROMPTS, temperature=0, max_new_tokens=20)]
    return [texts[0][4], next(token for token in texts[1][7:] if token != texts[0][4])]


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@each_model
def test_hypotheses_of_a_batch(tmp_path, name, early_stopping):
    """Prompts of different lengths, left-padded by both; no stop token, one, two; four length penalties; several results."""
    theirs, ours = pair(name, tmp_path, **MODELS[name])
    stops = stops_of(ours)
    kinds, lengths = set(), set()
    settings = itertools.product((-1.0, 0.0, 1.0, 2.0), ([], stops[:1], stops))
    for (penalty, ends), beams in zip(settings, itertools.cycle((2, 5))):
        options = {"beams": beams, "results": beams, "length_penalty": penalty, "stop_ids": ends, "max_new_tokens": 12}
        found = assert_equal(theirs, ours, PROMPTS, early_stopping=early_stopping, **options)
        kinds |= {h.finished for h in found}
        lengths |= {len(h.ids) for h in found}
    assert kinds == {"stop", "length"} and len(lengths) >= 4


@each_model
def test_to_the_end_of_the_context(tmp_path, name):
    """Many times beyond the windows of 3 and 4."""
    theirs, ours = pair(name, tmp_path, **MODELS[name])
    found = assert_equal(theirs, ours, PROMPTS, beams=4, results=2, max_new_tokens=33)
    assert len({tuple(h.ids) for h in found}) == 8


@pytest.mark.parametrize("options", [{"no_repeat_ngram": 2}, {"no_repeat_ngram": 3, "repetition_penalty": 1.3},
                                     {"repetition_penalty": 0.8}])  # fmt: skip
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_penalties(tmp_path, name, options):
    """A single prompt at a time: in a padded batch transformers would count the padding token as text."""
    theirs, ours = pair(name, tmp_path, **MODELS[name])
    differ = 0
    for prompt in PROMPTS:
        common = {"beams": 4, "results": 3, "max_new_tokens": 20, "stop_ids": stops_of(ours)[1:]}
        found = assert_equal(theirs, ours, [prompt], **common, **options)
        differ += [h.ids for h in found] != [h.ids for h in beam_search(ours, [prompt], **common)]
    assert differ >= 3, "without an effect it proves nothing"


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_least_and_most_tokens(tmp_path, name, early_stopping):
    theirs, ours = pair(name, tmp_path, **MODELS[name])
    stops = stops_of(ours)
    for least, most in ((1, 1), (3, 8), (8, 8), (0, 5)):
        options = {"beams": 4, "results": 4, "stop_ids": stops, "length_penalty": -1.0, "early_stopping": early_stopping}
        found = assert_equal(theirs, ours, PROMPTS, min_new_tokens=least, max_new_tokens=most, **options)
        assert all(least <= len(h.ids) <= most for h in found)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_forced_tokens(tmp_path, name):
    """transformers forces the first token where the decoder has read one, so the prompts here have one."""
    theirs, ours = pair(name, tmp_path, **MODELS[name])
    last = stops_of(ours)[0]
    for forced in ({"forced_first": 7}, {"forced_last": last}, {"forced_first": 9, "forced_last": last}):
        found = assert_equal(theirs, ours, [[3], [30], [8]], beams=4, results=3, max_new_tokens=9, stop_ids=[last], **forced)
        assert all(h.ids[0] == forced.get("forced_first", h.ids[0]) for h in found)
        assert "forced_last" not in forced or all(h.finished == "stop" for h in found)


def test_what_is_read_is_what_transformers_adds_up(tmp_path):
    """Its compute_transition_scores of the sequences adds up to our log-probability, the stop token's included."""
    theirs, ours = pair("gpt2", tmp_path, **MODELS["gpt2"])
    stops = stops_of(ours)
    ids, mask = padded(PROMPTS)
    out = theirs.generate(**as_torch(inputs=ids, attention_mask=mask), do_sample=False, pad_token_id=0, output_scores=True,
                          return_dict_in_generate=True, num_beams=4, num_return_sequences=4, max_new_tokens=12,
                          eos_token_id=stops)  # fmt: skip
    scores = theirs.compute_transition_scores(out.sequences, out.scores, out.beam_indices).sum(axis=1).tolist()
    found = beam_search(ours, PROMPTS, beams=4, results=4, max_new_tokens=12, stop_ids=stops)
    assert max(abs(h.log_probability - score) for h, score in zip(found, scores, strict=True)) < TOLERANCE
