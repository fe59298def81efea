"""Blanks filled: as the objective trains them, cached and not, alone and together, by GLM, ChatGLM-6B and T5; what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tinyplm
from tests.laws import MODEL
from tests.support import encoder_families
from tests.support.families import tiny
from tests.support.seq2seq_families import tiny as tiny_seq2seq
from tinyplm.generation import fill
from tinyplm.layers.softmax import log_softmax
from tinyplm.objectives import BlankTokens, blank_infilling, restore_blanks
from tinyplm.tokenizers import Tokenizer

M, S, E, SM, GM, CLS = range(1, 7)
TOKENS = BlankTokens(M, S, E, 0, sentence_mask_id=SM, document_mask_id=GM, first=(CLS,))
PROMPTS = [[CLS, 8, M, 9, SM, 10], [CLS, GM], [CLS, M, 7, 7, 7, SM, 8, M]]
SENTINELS = [18, 17, 16, 15]
SOURCES = [[3, 18, 4, 17, 1], [18, 1], [5, 18, 6, 6, 17, 7, 16, 1]]


def glm(**changes):
    return tiny("glm_2021", vocab_size=19, max_sequence_length=16, **changes)


def chatglm():
    return tiny(
        "chatglm_6b", vocab_size=19, max_sequence_length=24, mask_token_id=M, gmask_token_id=GM, bos_token_id=S, eos_token_id=E
    )


def t5(**changes):
    return tiny_seq2seq("t5", vocab_size=19, **changes)


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.ids == b.ids and a.text == b.text and len(a.blanks) == len(b.blanks)
        for one, other in zip(a.blanks, b.blanks):
            assert (one.place, one.ids, one.finished, one.text) == (other.place, other.ids, other.finished, other.text)
            assert len(one.log_probabilities) == len(one.ids)
            assert np.allclose(one.log_probabilities, other.log_probabilities, rtol=0, atol=MODEL)


def stopping(model):
    """The model with more tokens that end a fill, so that fills have different lengths."""
    model.generation = {"eos_token_id": [7, 8, 11, 16]}
    return model


CASES = {
    "glm": (lambda: stopping(glm()), PROMPTS, TOKENS),
    "chatglm": (chatglm, [[7, GM, 8], [7, 8, 9, M, S]], None),
    "t5": (t5, SOURCES, SENTINELS),
}


# ---- as trained


def test_each_token_has_the_probability_that_training_gives_it():
    """The result as a sample of the objective, whose spans come in order: one pass over both parts."""
    model, lengths = stopping(glm()), set()
    for found in fill(model, PROMPTS, tokens=TOKENS, max_new_tokens=4, temperature=1.4, samples=6):
        prompt = PROMPTS[found.prompt]
        pieces = [blank.ids for blank in found.blanks]
        places = [n for n, id in enumerate(prompt) if id in TOKENS.masks]
        assert [blank.place for blank in found.blanks] == places
        inside = [id for some in pieces for id in some]
        if not all(pieces) or {*inside} & {M, S, SM, GM}:
            continue  # no sample of the objective, which has no empty spans
        spans, shift = [], 0
        for place, some in zip(places, pieces):
            spans.append((place + shift - 1, place + shift - 1 + len(some)))  # without CLS
            shift += len(some) - 1
        text = found.ids[1:]
        sample = blank_infilling(text, np.array(spans), range(len(spans)), tokens=TOKENS)
        ids = sample.input_ids.copy()
        ids[places] = np.array(prompt)[places]  # masks of all kinds
        assert ids[: sample.prefix].tolist() == prompt
        assert restore_blanks(ids, sample.position_ids, prefix=sample.prefix, tokens=TOKENS).tolist() == text
        inputs = {"input_ids": ids[None], "position_ids": sample.position_ids[None], "prefix_lengths": [sample.prefix]}
        log_p = log_softmax(model(**inputs, grad=False)[0]["logits"])[0][0, np.arange(len(ids)), np.maximum(sample.targets, 0)]
        starts = sample.prefix + np.cumsum([0, *(len(some) + 1 for some in pieces)])
        for blank, start in zip(found.blanks, starts):
            assert np.allclose(blank.log_probabilities, log_p[start : start + len(blank.ids)], rtol=0, atol=MODEL)
        lengths |= {blank.finished for blank in found.blanks}
    assert lengths == {"stop", "length"}


def test_a_blank_by_hand():
    """Greedy, each token from a pass of its own over all that was read."""
    model = glm()
    [found] = fill(model, PROMPTS[0], tokens=TOKENS, max_new_tokens=3, temperature=0)
    ids, i, j = list(PROMPTS[0]), list(range(6)), [0] * 6
    for place in (2, 4):
        new = []
        for step in range(3):
            ids.append(new[-1] if new else S)
            i.append(place)
            j.append(step + 1)
            inputs = {"input_ids": [ids], "position_ids": np.array([[i, j]]), "prefix_lengths": [6]}
            new.append(int(model(**inputs, grad=False)[0]["logits"][0, -1].argmax()))
            if new[-1] == E:
                break
        else:  # a later blank reads the last token, too
            ids.append(new[-1])
            i.append(place)
            j.append(4)
        blank = found.blanks[(2, 4).index(place)]
        assert blank.ids == [id for id in new if id != E] and blank.finished == ("stop" if E in new else "length")


def test_chatglm_reads_its_one_blank_as_its_code_places_it():
    """Positions off the ids (models/placing.py), which its own call computes: text, mask, <sop>, answer."""
    model = chatglm()
    for prompt in ([7, GM, 8], [7, 8, 9, M]):
        [found] = fill(model, prompt, max_new_tokens=5, temperature=0)
        ids = [*prompt, S]
        for token, log_p in zip(found.blanks[0].ids, found.blanks[0].log_probabilities):
            expected = log_softmax(model([ids], grad=False)[0]["logits"][0, -1])[0]
            assert expected.argmax() == token and abs(expected[token] - log_p) < MODEL
            ids.append(token)
        assert_same([found], fill(model, [*prompt, S], max_new_tokens=5, temperature=0))  # with its tokenizer's <sop>


def test_an_encoder_decoder_writes_its_sentinels():
    """Each blank begins with its sentinel; log-probabilities are those of one pass over the target."""
    model = stopping(t5())
    found = fill(model, SOURCES, tokens=SENTINELS, max_new_tokens=3, seed=2, samples=3)
    assert {blank.finished for one in found for blank in one.blanks} == {"stop", "length"}
    for one in found:
        target = [id for n, blank in enumerate(one.blanks) for id in (SENTINELS[n], *blank.ids)]
        read = [model.start_id(), *target[:-1]]
        outputs, _ = model([SOURCES[one.prompt]], decoder_input_ids=[read], grad=False)
        log_p = log_softmax(outputs["logits"])[0][0, np.arange(len(target)), target]
        given = [p for blank in one.blanks for p in (None, *blank.log_probabilities)]
        assert all(p is None or abs(p - q) < MODEL for p, q in zip(given, log_p.tolist(), strict=True))
        assert not set(one.ids) & set(SENTINELS) and one.ids[-1] == 1


# ---- all kinds


@pytest.mark.parametrize("options", [{"temperature": 0}, {"samples": 3, "temperature": 1.3, "top_p": 0.9}])
@pytest.mark.parametrize("name", CASES)
def test_cached_and_uncached_together_and_alone(name, options):
    make, prompts, tokens = CASES[name]
    model, common = make(), {"tokens": tokens, "max_new_tokens": 4, **options}
    together = fill(model, prompts, **common)
    assert_same(together, fill(model, prompts, cached=False, **common))
    assert_same(together, fill(model.for_decoding(), prompts, **common))
    samples = options.get("samples", 1)
    assert [one.prompt for one in together] == [n for n in range(len(prompts)) for _ in range(samples)]
    for n, prompt in enumerate(prompts):
        alone = fill(model, [prompt] * (n + 1), **common)[-samples:]  # a sample depends on its prompt's number
        assert_same(together[n * samples : (n + 1) * samples], alone)
    if samples > 1:
        assert len({tuple(one.ids) for one in together}) > len(prompts)
        other = fill(model, prompts, seed=1, **common)
        assert [one.ids for one in other] != [one.ids for one in together]


def test_prompts_that_do_not_fit_together_are_filled_alone():
    """Padded to one width, the second one's blanks have no room."""
    model, prompts = glm(), [[CLS, *[7] * 14, M], [CLS, *[M] * 6]]
    assert 16 + 6 * 4 - 1 > model.config.cache_context >= 7 + 6 * 4 - 1
    alone = [fill(model, prompt, tokens=TOKENS, max_new_tokens=3, temperature=0)[0] for prompt in prompts]
    assert_same(fill(model, prompts, tokens=TOKENS, max_new_tokens=3, temperature=0), alone)


def test_text_with_names_from_the_tokenizer():
    special = ["[CLS]", "[MASK]", "[gMASK]", "<|startofpiece|>", "<|endofpiece|>", "<extra_id_0>"]
    tokenizer = Tokenizer.train(["a b"], 256 + len(special), special)
    model = tiny("glm_2021", vocab_size=tokenizer.vocab_size, max_sequence_length=16)
    model.tokenizer = tokenizer
    prompt = tokenizer.encode("[CLS]ab[MASK]c[gMASK]", allow_special=True)
    [found] = tinyplm.fill(model, prompt, max_new_tokens=3, temperature=0)
    vocab = tokenizer.vocab
    tokens = BlankTokens(vocab["[MASK]"], vocab["<|startofpiece|>"], vocab["<|endofpiece|>"], 0,
                         document_mask_id=vocab["[gMASK]"], first=(vocab["[CLS]"],))  # fmt: skip
    assert_same([found], fill(model, prompt, max_new_tokens=3, temperature=0, tokens=tokens))
    one, two = found.blanks
    assert one.text == tokenizer.decode(one.ids) and one.ids and two.place == 5
    assert found.text == tokenizer.decode([*prompt[1:3], *one.ids, prompt[4], *two.ids], skip_special=True)


# ---- bad input


def test_models_that_fill_no_blanks_are_refused_by_name():
    for model, message in (
        (tiny("llama"), "got <llama model, .*, which reads a text from left to right alone; generate continues one"),
        (tiny("chatglm"), "got <chatglm model, .*, which reads a text from left to right alone"),
        (tiny("glm"), "got <glm model, .*, which reads"),
        (
            encoder_families.tiny("bert", "masked_lm"),
            "got <bert masked_lm model, .*, which predicts all masked tokens in one call",
        ),
        (None, "model: expected a model, as tinyplm.load"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            fill(model, [[1]], max_new_tokens=1)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("glm", {"prompts": [[CLS, 7, 8]]}, "prompts: expected a blank, one of the tokens 1, 4, 5, got none in prompt 0"),
        ("glm", {"prompts": [[CLS, M], [8, M]]}, "prompts: expected [6] first, as tokens.first says, got [8] in prompt 1"),
        ("glm", {"prompts": [CLS, S, M]}, "prompts: expected no start of a piece (2) but at the end, got one at place 1"),
        ("glm", {"prompts": [[CLS, *[M] * 8]]}, "prompts: expected at most 5 blanks of 4 tokens behind 9 tokens, got 8"),
        ("glm", {"prompts": [[CLS, M, *[7] * 15]]}, "prompts: expected 1 to 16 tokens, got 17 in prompt 0"),
        ("glm", {"max_new_tokens": 16}, "max_new_tokens: expected at most 15, the positions, got 16"),
        ("glm", {"tokens": SENTINELS}, "tokens: expected None or BlankTokens for a GLM, got [18, 17, 16, 15]"),
        ("glm", {"tokens": None}, "tokens: expected BlankTokens for a model without a tokenizer, got None"),
        ("glm", {"tokens": BlankTokens(M, S, 19, 0)}, "tokens: expected integers from 0 to 18, got 19"),
        ("chatglm", {"prompts": [7, 8]}, "prompts: expected a blank, one of the tokens 1, 5, got none in prompt 0"),
        ("chatglm", {"prompts": [7, M, GM]}, "prompts: expected one blank, all that chatglm_6b has positions for, got 2"),
        ("t5", {"prompts": [[3, 1]]}, "prompts: expected a blank, one of the tokens 18, 17, 16, 15, got none in prompt 0"),
        ("t5", {"prompts": [[3, 17, 1]]}, "prompts: expected the sentinels in order, 18, got 17 in prompt 0"),
        ("t5", {"tokens": TOKENS}, "tokens: expected None or the sentinels' ids for an encoder-decoder, got BlankTokens"),
        ("t5", {"tokens": None}, "tokens: expected the sentinels' ids for a model without a tokenizer, got None"),
        ("t5", {"prompts": []}, "prompts: expected at least 1 token, got 0 in one prompt"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(name, changes, message):
    make, prompts, tokens = CASES[name]
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        fill(make(), **{"prompts": prompts, "tokens": tokens, "max_new_tokens": 4, **changes})
    assert "\n" not in str(error.value)


def test_a_config_without_the_tokens_is_refused():
    model = tiny("chatglm_6b", vocab_size=19)
    with pytest.raises(ValueError, match="config: mask_token_id, gmask_token_id: expected an id, or tokens, got None"):
        fill(model, [[7, GM]], max_new_tokens=2)
    one = fill(model, [[7, GM]], max_new_tokens=2, tokens=BlankTokens(M, S, E, 0, document_mask_id=GM), temperature=0)
    assert len(one[0].blanks[0].ids) <= 2
