"""ChatGLM-6B's own: the authors' numbers, positions and prefix read off the ids, decoding, counts, what is refused; behaviour
shared with other families is in tests/models."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import tinyplm
from reference.models import published
from tests.laws import MODEL, relative_error
from tests.models.test_causal_lm import assert_gradients
from tests.support.families import tiny
from tests.support.sizes import assert_counts
from tests.support.vectors import CLOSE, assert_vector, folder_of, vector, weights_of
from tinyplm.backend import to_host
from tinyplm.families import chatglm, chatglm_6b, family_of
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import from_dict
from tinyplm.models.names import to_hub
from tinyplm.models.placing import blank_places

GMASK, MASK, SOP = {"gmask_token_id": 9}, {"mask_token_id": 8}, {"bos_token_id": 10}
TOKENS = {**GMASK, **MASK, **SOP}
IDS = np.array([[4, 7, 9, 10, 5], [2, 3, 8, 6, 10]])
FILE = {"model_type": "chatglm", "bos_token_id": 5, "mask_token_id": 6, "gmask_token_id": 7}


def test_the_published_size_has_the_published_count():
    """6,173,286,400 where head and table are one, as transformers counts; the files hold both."""
    assert_counts(chatglm_6b, {"chatglm-6b": 6_173_286_400})
    apart = chatglm_6b.shapes(from_dict(chatglm_6b.Config, FILE))
    assert count_parameters(apart) == 6_173_286_400 + 130528 * 4096


def test_the_authors_numbers(tmp_path):
    assert_vector("chatglm-6b", tmp_path)


def test_the_formulas_from_the_published_tensors():
    v = vector("chatglm-6b")
    c = v["config"]
    settings = {"layers": 2, "heads": 2, "eps": c["layernorm_epsilon"], "start": c["bos_token_id"]}
    masks = [c["gmask_token_id"], c["mask_token_id"]]
    logits = published.chatglm_6b(weights_of(v), v["input_ids"], masks=masks, **settings)
    assert relative_error(logits, v["logits"]) < CLOSE


def test_the_folder_says_which_chatglm_it_is():
    assert family_of({"model_type": "chatglm", "inner_hidden_size": 9}) is chatglm_6b
    assert family_of({"model_type": "chatglm", "ffn_hidden_size": 9}) is chatglm


def test_positions_and_prefix_are_read_off_the_ids():
    places = tiny("chatglm_6b", **TOKENS).placed(IDS)
    assert places["position_ids"].tolist() == [
        [[0, 1, 2, 2, 2], [0, 0, 0, 1, 2]],
        [[0, 1, 2, 3, 2], [0, 0, 0, 0, 1]],
    ]
    assert places["prefix_lengths"].tolist() == [3, 4]
    assert not tiny("chatglm_6b").config.reads_places


def test_both_masks_in_a_text():
    """[gMASK] counts, wherever it is; of two of a kind, the first."""
    settings = {"start": ("s", 10), "masks": {"g": 9, "m": 8}}
    found = blank_places(np.array([[8, 9, 9, 10], [1, 8, 8, 10], [1, 10, 8, 10]]), **settings)["position_ids"]
    assert found[:, 0, 3].tolist() == [1, 1, 2] and found[:, 1, 3].tolist() == [1, 1, 3]


def test_given_positions_and_prefix_are_the_same_call():
    model = tiny("chatglm_6b", **TOKENS)
    logits = model(IDS, grad=False)[0]["logits"]
    again = tiny("chatglm_6b")(IDS, **model.placed(IDS), grad=False)[0]["logits"]
    assert np.array_equal(logits, again)
    assert relative_error(tiny("chatglm_6b")(IDS, grad=False)[0]["logits"], logits) > 0.01


def test_every_gradient(device):
    targets = np.array([[-100, -100, -100, 5, 1], [-100, 2, -100, -100, 3]])
    assert_gradients(tiny("chatglm_6b", device=device, **TOKENS), input_ids=IDS, targets={"logits": targets})


def test_padding_on_the_left_changes_nothing():
    model = tiny("chatglm_6b", **TOKENS)
    text = np.array([[7, 9, 10, 5]])
    expected = model(text, grad=False)[0]["logits"]
    padded = model(np.concatenate([[[3]], text], axis=1), attention_mask=[[0, 1, 1, 1, 1]], grad=False)[0]["logits"]
    assert relative_error(padded[:, 1:], expected) < MODEL


def test_a_cache_filled_with_the_prefix_equals_the_uncached_pass():
    model = tiny("chatglm_6b", **TOKENS)
    whole, places = model(IDS, grad=False)[0]["logits"], model.placed(IDS)
    cache = model.empty_cache(2, 5)
    outputs, _ = model(IDS[:, :4], cache=cache, position_ids=places["position_ids"][..., :4],
                       prefix_lengths=places["prefix_lengths"], grad=False)  # fmt: skip
    rest, _ = model(IDS[:, 4:], cache=outputs["cache"], position_ids=places["position_ids"][..., 4:], grad=False)
    assert relative_error(rest["logits"][:, 0], whole[:, 4]) < MODEL
    with pytest.raises(
        ValueError, match=re.escape("position_ids: expected the places of these tokens, (2, 2, 1), behind a cache")
    ):
        model(IDS[:, :1], cache=rest["cache"].cut(4), grad=False)


@pytest.mark.parametrize("cached", [True, False])
def test_what_it_writes_is_the_likeliest_token_of_the_whole_pass_each_time(device, cached):
    model = tiny("chatglm_6b", device=device, max_sequence_length=12, **TOKENS)
    prompts = [[4, 7, 9, 10], [3, 8, 10]]
    found = tinyplm.generate(model, prompts, max_new_tokens=4, temperature=0, cached=cached)
    for prompt, written in zip(prompts, found, strict=True):
        text = list(prompt)
        for _ in range(4):
            logits = to_host(model([text], grad=False)[0]["logits"])
            text.append(int(logits[0, -1].argmax()))
        assert list(written.ids) == text[len(prompt) :]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 2, 10, 3]], "[gMASK] (9) or [MASK] (8) in each text, or position_ids and prefix_lengths, got none in row 0"),
        ([[1, 9, 10, 3], [8, 2, 1, 3]], "<sop> (10) in each text, or position_ids and prefix_lengths, got none in row 1"),
    ],
)
def test_ids_without_a_mask_or_start_are_refused(ids, message):
    with pytest.raises(ValueError, match=re.escape(f"input_ids: expected {message}")):
        tiny("chatglm_6b", **TOKENS)(ids)


def test_positions_of_one_kind_are_refused():
    """As for several samples packed into one row."""
    with pytest.raises(ValueError, match=re.escape("position_ids: expected shape (1, 2, 4), got (1, 4)")):
        tiny("chatglm_6b", **TOKENS)([[1, 9, 10, 3]], position_ids=[[0, 1, 2, 3]])


def test_beams_with_and_without_a_cache():
    model = tiny("chatglm_6b", max_sequence_length=12, **TOKENS)
    found = [
        [text.ids for text in tinyplm.generation.beam_search(model, [4, 7, 9, 10], beams=3, max_new_tokens=4, cached=cached)]
        for cached in (True, False)
    ]
    assert found[0] == found[1] and len(found[0][0]) == 4


def test_a_mask_in_the_padding_does_not_count():
    with pytest.raises(ValueError, match=re.escape("expected [gMASK] (9) or [MASK] (8) in each text")):
        tiny("chatglm_6b", **TOKENS)([[9, 1, 10, 3]], attention_mask=[[0, 1, 1, 1]])


def test_query_key_value_has_the_rows_of_each_head_together():
    model = tiny("chatglm_6b")
    p = model.params["body"]["layers"][1]["attention"]
    rows = to_hub(model.params, chatglm_6b.renames(model.config))["transformer.layers.1.attention.query_key_value.bias"]
    assert np.array_equal(rows, np.concatenate([p[f"b{n}"][4 * h : 4 * h + 4] for h in (0, 1) for n in "qkv"]))


def test_stored_frequencies_are_ignored(tmp_path):
    from safetensors.numpy import load_file, save_file

    v = vector("chatglm-6b")
    folder = folder_of(v, tmp_path / "theirs")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "transformer.layers.0.attention.rotary_emb.inv_freq": np.ones(2)}, folder / "model.safetensors")
    assert relative_error(tinyplm.load(folder)(v["input_ids"])[0]["logits"], v["logits"]) < CLOSE


def test_the_files_model_type_is_the_authors(tmp_path):
    tinyplm.save(tiny("chatglm_6b", **TOKENS), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert written["model_type"] == "chatglm" and written["gmask_token_id"] == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"quantization_bit": 8},
            "quantization_bit: expected 0, in the same model's folder without -int4 or -int8 in its name, got 8",
        ),
        (
            {"pre_seq_len": 128},
            "pre_seq_len: expected None; tuning.load_ptuned reads the model and its prefix, got 128",
        ),
        ({"vocab_size": 150528}, "vocab_size: expected 130528 or another; the early files' code places positions otherwise, got"),
        ({"position_encoding_2d": False}, "position_encoding_2d: expected True for chatglm_6b, got False"),
        ({"hidden_size": 64}, "hidden_size: expected a multiple of 4 num_attention_heads = 128, got 64"),
        ({"num_layers": 0}, "num_layers: expected a positive integer, got 0"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_dict(chatglm_6b.Config, {**FILE, **changes})
    assert "\n" not in str(error.value)


def test_a_file_that_names_no_mask_is_refused():
    del (settings := dict(FILE))["gmask_token_id"]
    with pytest.raises(ValueError, match="gmask_token_id: expected an id, or null for a model without it, got None"):
        from_dict(chatglm_6b.Config, settings)
