# ruff: noqa: E402 - imports follow importorskip
"""Generation against transformers: greedy ids, penalties, the sampling distribution, log-probabilities, cached logits.

All in float64 (pair.float64), so rounding decides no tie and the ids must agree to the last token.
"""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tinyplm
from tests.interop.families import FAMILIES, ROPES
from tests.interop.pair import as_torch, assert_same, for_them, in_float64, pair
from tests.laws import relative_error
from tinyplm.generation import Memory, generate, stream
from tinyplm.generation.sampling import Sampling, ban_repeated_ngrams, penalise_repetition, token_distribution

pytestmark = pytest.mark.usefixtures("in_float64")

UNTIED = {"tie_word_embeddings": False}
MODELS = {
    "gpt2": ("gpt2", {"n_positions": 40}),
    "gpt2, untied": ("gpt2", {"n_positions": 40, "tie_word_embeddings": False}),
    "llama": ("llama", {"max_position_embeddings": 40}),
    "llama, tied": ("llama", {"max_position_embeddings": 40, "tie_word_embeddings": True}),
    "llama, one kv head": ("llama", {"max_position_embeddings": 40, "num_key_value_heads": 1}),
    "llama, as many kv heads": ("llama", {"max_position_embeddings": 40, "num_key_value_heads": 4}),
    **{f"llama, {name}": ("llama", changes) for name, changes in ROPES.items()},
    "mistral": ("mistral", {"max_position_embeddings": 40}),
    "mistral, window of 2": ("mistral", {"max_position_embeddings": 40, "sliding_window": 2}),
    "mistral, window of 9": ("mistral", {"max_position_embeddings": 40, "sliding_window": 9}),
    "mistral, no window": ("mistral", {"max_position_embeddings": 40, "sliding_window": None}),
    "qwen2": ("qwen2", {"max_position_embeddings": 40}),
    "qwen2, no window": ("qwen2", {"max_position_embeddings": 40, "use_sliding_window": False}),
    **{name: (name, {FAMILIES[name].context: 40}) for name in ("qwen3", "gemma", "olmo2", "phi3", "glm", "glm4")},
    **{name: (name, {"max_position_embeddings": 40}) for name in ("mixtral", "qwen2_moe", "qwen3_moe")},
    # untied heads and seeds where the others repeat one token
    **{name: (name, {"max_position_embeddings": 40, **UNTIED}) for name in ("gemma2", "gemma3_text")},
    "gemma2, window of 2": ("gemma2", {"max_position_embeddings": 40, "sliding_window": 2, **UNTIED}),
    "gemma3_text, five to one": ("gemma3_text", {"max_position_embeddings": 40, "num_hidden_layers": 6, **UNTIED,
                                                 "layer_types": ["sliding_attention"] * 5 + ["full_attention"]}),
    "bloom": ("bloom", {"seed": 1, **UNTIED}),
    "bloom, eight heads": ("bloom", {"hidden_size": 32, "n_head": 8, "seed": 2}),
    "openai-gpt": ("openai-gpt", {"n_positions": 40, "seed": 3, **UNTIED}),
}  # fmt: skip
DYNAMIC = [name for name in MODELS if "dynamic" in name or "longrope" in name]
PROMPTS = [np.random.default_rng(n).integers(0, 41, n).tolist() for n in (3, 7, 1, 5)]


def padded(prompts):
    """ids, attention_mask: the prompts left-padded to one width."""
    width = max(map(len, prompts))
    ids = np.array([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    return ids, np.array([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])


def their_greedy(theirs, prompts, max_new_tokens, **options):
    """The new ids of each prompt, all in one batch; padding follows a stop token."""
    ids, mask = padded(prompts)
    out = theirs.generate(**as_torch(inputs=ids, attention_mask=mask), do_sample=False, max_new_tokens=max_new_tokens,
                          pad_token_id=0, **options)  # fmt: skip
    return out[:, ids.shape[1] :].tolist()


def our_greedy(ours, prompts, max_new_tokens, **options):
    return [c.ids for c in generate(ours, prompts, temperature=0, max_new_tokens=max_new_tokens, **options)]


# --------------------------------------------------------------------------------------------------------------- greedy


@pytest.mark.parametrize("name", [name for name in MODELS if name not in DYNAMIC])
def test_greedy_ids_of_a_batch_and_of_each_prompt_alone(tmp_path, name):
    """Prompts of different lengths, left-padded by both; the longest and its continuation fill the context of 40."""
    family, changes = MODELS[name]
    theirs, ours = pair(family, tmp_path, **changes)
    expected = their_greedy(theirs, PROMPTS, 33)
    assert len(set(itertools.chain(*expected))) >= 8, "a text of a few tokens only would prove little"
    assert our_greedy(ours, PROMPTS, 33) == expected
    assert our_greedy(ours, PROMPTS, 33, cached=False) == expected
    assert [our_greedy(ours, prompt, 33)[0] for prompt in PROMPTS] == expected


@pytest.mark.parametrize("name", DYNAMIC)
def test_greedy_ids_with_dynamic_scaling(tmp_path, name):
    """From within the trained context to beyond it, where we recompute the whole text for each token.

    transformers keeps cached keys that it rotated with the frequencies of a shorter text, so its cache is off here.  Its model
    remembers the longest text, so each text gets a new one.  Each text runs alone, since a batch in transformers uses the
    frequencies of its longest text; in ours each text has its own.
    """
    family, changes = MODELS[name]
    theirs, ours = pair(family, tmp_path, **changes)
    n = ours.config.context - 7
    assert 7 < ours.config.cache_context < 7 + n
    expected = [their_greedy(in_float64(theirs), [prompt], n, use_cache=False)[0] for prompt in PROMPTS]
    assert len(set(itertools.chain(*expected))) >= 8
    assert [our_greedy(ours, prompt, n)[0] for prompt in PROMPTS] == expected
    assert our_greedy(ours, PROMPTS, n) == expected
    assert our_greedy(ours, PROMPTS, n, cached=False) == expected


def test_a_prompt_already_beyond_the_trained_context_of_dynamic_scaling(tmp_path):
    theirs, ours = pair("llama", tmp_path, **ROPES["dynamic"])
    prompt = np.random.default_rng(0).integers(0, 41, 20).tolist()
    assert our_greedy(ours, prompt, 28) == their_greedy(theirs, [prompt], 28, use_cache=False)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen2", "gemma2", "phi3", "bloom", "openai-gpt"])
def test_greedy_ids_of_a_second_turn_that_remembers_the_first(tmp_path, name):
    """As in a chat: the first turn's keys and values are kept, even after part of the text is removed."""
    family, changes = MODELS[name]
    theirs, ours = pair(family, tmp_path, **changes)
    memory, text = Memory(), PROMPTS[1]
    for kept, new in ((12, [4, 5, 6]), (9, [7]), (40, [8, 9])):
        pieces = itertools.chain(*stream(ours, [text], max_new_tokens=8, temperature=0, memory=memory))
        ids = [piece.id for piece in pieces]
        assert ids == their_greedy(theirs, [text], 8)[0]
        assert len(memory.ids) > 7
        text = [*text, *ids][:kept] + new


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_greedy_generation_stops_where_transformers_stops(tmp_path, name):
    """At either of two tokens, each text of the batch at its own time.  Our ids exclude the stop token, theirs include it."""
    family, changes = MODELS[name]
    theirs, ours = pair(family, tmp_path, **changes)
    free = our_greedy(ours, PROMPTS, 30)
    stops = [free[0][4], next(token for token in free[1][9:] if token != free[0][4])]
    expected = [until(ids, stops) for ids in their_greedy(theirs, PROMPTS, 30, eos_token_id=stops)]
    found = generate(ours, PROMPTS, temperature=0, max_new_tokens=30, stop_ids=stops)
    assert [c.ids + ids[len(c.ids) :] for c, ids in zip(found, expected)] == expected
    assert [c.finished == "stop" for c in found] == [ids[-1] in stops for ids in expected]
    assert [len(c.ids) for c in found] == [len(ids) - (ids[-1] in stops) for ids in expected]
    assert len({len(c.ids) for c in found}) >= 3, "the texts should end at different times"


def until(ids, stops):
    """Up to and including the first stop token."""
    end = next((i for i, token in enumerate(ids) if token in stops), len(ids))
    return ids[: end + 1]


def test_the_end_ids_of_a_folder_are_where_transformers_ends(tmp_path):
    """As set in its generation_config.json, which may name more tokens than config.json."""
    theirs, ours = pair("llama", tmp_path / "first", max_position_embeddings=40)
    free = our_greedy(ours, PROMPTS[0], 30)[0]
    theirs.generation_config.eos_token_id = [free[12], free[5]]
    theirs.save_pretrained(tmp_path / "second")
    ours = tinyplm.load(tmp_path / "second")
    expected = until(their_greedy(theirs, PROMPTS[:1], 30)[0], [free[12], free[5]])
    assert our_greedy(ours, PROMPTS[0], 30, stop_ids=ours.end_ids())[0] == expected[:-1]
    assert len(expected) <= 13


@pytest.mark.parametrize(("penalty", "n"), [(1.3, None), (0.8, None), (4.0, None), (1.0, 1), (1.0, 2), (1.0, 3), (1.2, 3)])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_greedy_ids_with_penalties(tmp_path, name, penalty, n):
    """A single prompt at a time: in a padded batch transformers would count the padding token as text."""
    family, changes = MODELS[name]
    theirs, ours = pair(family, tmp_path, **changes)
    options = {} if n is None else {"no_repeat_ngram_size": n}
    differ = 0
    for prompt in PROMPTS:
        expected = their_greedy(theirs, [prompt], 30, repetition_penalty=penalty, **options)
        assert our_greedy(ours, prompt, 30, repetition_penalty=penalty, no_repeat_ngram=n) == expected
        differ += expected != our_greedy(ours, prompt, 30)
    assert differ >= 3, "without an effect it proves nothing"
    together = our_greedy(ours, PROMPTS, 30, repetition_penalty=penalty, no_repeat_ngram=n)  # our padding is not text
    assert together == [our_greedy(ours, prompt, 30, repetition_penalty=penalty, no_repeat_ngram=n)[0] for prompt in PROMPTS]


# --------------------------------------------------------------------------------------------- cached logits, step by step

NAMES = {name: inspect.signature(family.lm.forward).parameters for name, family in FAMILIES.items()}


def their_cache(family):
    """Newer transformers calls it "cache", both as an argument and in the outputs."""
    return "cache" if "cache" in NAMES[family] else "past_key_values"


def real_rows(mask):
    return mask.cumsum(axis=1) > 0


@pytest.mark.parametrize("name", [name for name in MODELS if name != "openai-gpt"])  # which has no cache in transformers
def test_cached_logits_step_by_step(tmp_path, name):
    """Several tokens first, several onto the cache, then one by one; left-padded.  Dynamic scaling can cache up to 12."""
    family, changes = MODELS[name]
    theirs, ours = pair(family, tmp_path, **changes)
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(0, 41, (3, 12)), (np.arange(12) >= np.array([[0], [2], [5]])).astype(np.int64)
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    whole = theirs(**for_them(theirs, input_ids=ids, attention_mask=mask, position_ids=positions)).logits.detach().numpy()
    our_cache, name_of_cache = ours.empty_cache(3, 12), their_cache(family)
    cached = None
    for start, stop in itertools.pairwise([0, 4, 7, 8, 9, 10, 11, 12]):
        part, rows = slice(start, stop), real_rows(mask)[:, start:stop]
        inputs = {"input_ids": ids[:, part], "attention_mask": mask[:, :stop], "position_ids": positions[:, part]}
        with torch.no_grad():
            output = theirs(**for_them(theirs, **inputs), use_cache=True, **{name_of_cache: cached})
        cached = output[name_of_cache]
        outputs, _ = ours(**inputs, cache=our_cache, grad=False)
        our_cache = outputs["cache"]
        assert our_cache.length == stop == cached.get_seq_length()
        assert_same("logits", outputs["logits"][rows], output.logits.numpy()[rows])
        assert_same("logits", outputs["logits"][rows], whole[:, part][rows])


def test_why_the_cache_of_transformers_is_off_for_dynamic_scaling(tmp_path):
    """Beyond the trained context its cached logits differ from a full pass; ours uses no cache there and is correct."""
    theirs, ours = pair("llama", tmp_path, **ROPES["dynamic"])
    ids = np.random.default_rng(0).integers(0, 41, (1, 20))
    with torch.no_grad():
        whole = in_float64(theirs)(torch.from_numpy(ids)).logits.numpy()
        first = theirs(torch.from_numpy(ids[:, :19]), use_cache=True)
        cached = theirs(torch.from_numpy(ids[:, 19:]), **{their_cache("llama"): first[their_cache("llama")]}).logits.numpy()
    assert relative_error(cached[:, 0], whole[:, 19]) > 1e-3
    assert_same("logits", ours(ids)[0]["logits"], whole)
    with pytest.raises(ValueError, match="capacity: expected an integer from 1 to 12, got 13"):
        ours.empty_cache(1, 13)


# -------------------------------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize("name", ["gpt2", "llama", "llama, llama3", "llama, dynamic", "mistral", "qwen2", "gemma2", "bloom"])
def test_log_probabilities_are_those_of_the_model(tmp_path, name):
    """log_softmax of transformers' logits, in one pass over the finished text, however the tokens were sampled."""
    family, changes = MODELS[name]
    theirs, ours = pair(family, tmp_path, **changes)
    n = 5 if name in DYNAMIC else 20  # a longer text changes the frequencies, also for its beginning
    options = {"temperature": 0.8, "top_k": 9, "top_p": 0.9, "repetition_penalty": 1.3, "no_repeat_ngram": 3}
    found = generate(ours, PROMPTS, samples=2, max_new_tokens=n, seed=1, **options)
    assert [c.prompt for c in found] == [0, 0, 1, 1, 2, 2, 3, 3] and len({tuple(c.ids) for c in found}) == 8
    for c in found:
        text = PROMPTS[c.prompt] + c.ids
        with torch.no_grad():
            logits = theirs(torch.tensor([text])).logits[0, len(PROMPTS[c.prompt]) - 1 : -1]
        expected = logits.log_softmax(-1)[torch.arange(n), torch.tensor(c.ids)].numpy()
        assert np.max(np.abs(np.array(c.log_probabilities) - expected)) < 1e-10
    pieces = itertools.chain(*stream(ours, PROMPTS, samples=2, max_new_tokens=n, seed=1, **options))
    assert sorted((p.row, p.id, p.log_probability) for p in pieces) == sorted(
        (row, *both) for row, c in enumerate(found) for both in zip(c.ids, c.log_probabilities))  # fmt: skip


def their_distribution(logits, *, ids=None, temperature=1.0, top_k=None, top_p=None, min_p=None, penalty=1.0, ngram=None):
    """transformers' processors in the order of its generate: penalties, temperature, top-k, top-p of the rest, min-p."""
    t = transformers
    chain = [] if penalty == 1 else [t.RepetitionPenaltyLogitsProcessor(penalty)]
    chain += [] if ngram is None else [t.NoRepeatNGramLogitsProcessor(ngram)]
    chain += [t.TemperatureLogitsWarper(temperature)]
    chain += [] if top_k is None else [t.TopKLogitsWarper(top_k)]
    chain += [] if top_p is None else [t.TopPLogitsWarper(top_p)]
    chain += [] if min_p is None else [t.MinPLogitsWarper(min_p)]
    ids = torch.zeros(len(logits), 1, dtype=torch.long) if ids is None else torch.tensor(ids)
    return t.LogitsProcessorList(chain)(ids, torch.from_numpy(logits.copy())).softmax(-1).numpy()


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.8},
        {"temperature": 1.3, "top_k": 9, "top_p": 0.6},
        {"temperature": 0.5, "top_k": 1},
        {"top_p": 0.01},
        {"top_p": 1.0},
        {"min_p": 0.1},
        {"min_p": 0.5},
        {"min_p": 1.0},
        {"min_p": 0.0},
        {"temperature": 2.0, "min_p": 0.3},
        {"top_k": 6, "min_p": 0.2},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.15},
        {"top_k": 41},
        {"top_k": 100},
    ],
    ids=str,
)
def test_the_sampling_distribution_is_that_of_transformers(options):
    logits = np.random.default_rng(0).normal(0, 2, (6, 41))
    ours, theirs = token_distribution(logits, **options), their_distribution(logits, **options)
    assert np.array_equal(ours > 0, theirs > 0)
    assert_same("distribution", ours, theirs, 1e-12)


@pytest.mark.parametrize("penalty", [1.3, 0.6, 7.0])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
    rng = np.random.default_rng(0)
    logits, ids = rng.normal(0, 2, (6, 41)), rng.integers(0, 41, (6, 30))
    logits[:, 3] = 0
    expected = transformers.RepetitionPenaltyLogitsProcessor(penalty)(torch.from_numpy(ids), torch.from_numpy(logits.copy()))
    ours = logits.copy()
    for row, text in zip(ours, ids):
        penalise_repetition(row, text, penalty=penalty)
    assert np.array_equal(ours, expected.numpy()) and 10 < (ours[0] != logits[0]).sum() < 30


@pytest.mark.parametrize("length", [1, 2, 3, 40])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_banned_ngrams_are_those_of_transformers(n, length):
    """Texts over three tokens, where most n-grams repeat."""
    rng = np.random.default_rng(length)
    logits, ids = rng.normal(0, 2, (20, 5)), rng.integers(0, 3, (20, length))
    expected = transformers.NoRepeatNGramLogitsProcessor(n)(torch.from_numpy(ids), torch.from_numpy(logits.copy()))
    ours = logits.copy()
    for row, text in zip(ours, ids):
        ban_repeated_ngrams(row, text, n=n)
    assert np.array_equal(ours, expected.numpy())
    assert np.isinf(ours).any() == (length >= n)


class At:
    """A generator that always returns u."""

    def __init__(self, u):
        self.u = u

    def random(self):
        return self.u


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.8, "repetition_penalty": 1.5, "no_repeat_ngram": 1, "top_k": 8},
        {"temperature": 1.2, "repetition_penalty": 1.5, "top_p": 0.7},
        {"no_repeat_ngram": 2, "min_p": 0.1},
        {"temperature": 1.5, "repetition_penalty": 0.7, "no_repeat_ngram": 2, "top_k": 12, "top_p": 0.9, "min_p": 0.05},
    ],
    ids=str,
)
def test_all_steps_of_sampling_together_are_those_of_transformers(options):
    """The order of the steps.  A token is drawn by inverting the cumulative distribution, so drawing at each u of a grid
    reveals the distribution; at u within rounding of a step either token is correct.
    """
    rng = np.random.default_rng(0)
    logits, ids = rng.normal(0, 2, (4, 15)), rng.integers(0, 15, (4, 12))
    names = {"repetition_penalty": "penalty", "no_repeat_ngram": "ngram"}
    cumulative = their_distribution(logits, ids=ids, **{names.get(k, k): v for k, v in options.items()}).cumsum(axis=1)
    grid = (np.arange(1000) + 0.5) / 1000
    drawn = np.stack([Sampling(**options).choose(logits, ids.tolist(), [At(u)] * 4) for u in grid], axis=1)
    for row, steps in zip(drawn, cumulative):
        clear = np.abs(grid[:, None] - steps).min(axis=1) > 1e-9
        assert np.array_equal(row[clear], np.searchsorted(steps, grid[clear], side="right"))
        assert clear.sum() > 990 and len(set(row)) > 2
