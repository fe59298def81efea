"""GLM-130B's own: the authors' numbers, the paper's formula, masks and positions, initial scales, counts, what is refused;
behaviour shared with other families is in tests/models."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tinyplm
from reference.models.glm_130b import glm_130b as formula
from tests.laws import MODEL, relative_error
from tests.models.test_causal_lm import assert_gradients
from tests.support.families import tiny
from tests.support.sizes import assert_counts
from tests.support.vectors import CLOSE, assert_vector, folder_of, vector, weights_of
from tinyplm.backend import to_host
from tinyplm.core import flatten
from tinyplm.families import glm_130b
from tinyplm.models.config import from_dict
from tinyplm.models.names import to_hub

MASK, SMASK, GMASK, SOP = 6, 7, 9, 10
TOKENS = {"mask_token_id": MASK, "smask_token_id": SMASK, "gmask_token_id": GMASK, "bos_token_id": SOP}
IDS = np.array([[4, 3, GMASK, SOP, 5], [2, MASK, 8, SOP, 5], [GMASK, SMASK, 1, SOP, 5]])


def test_the_published_size_has_the_published_count():
    """ "130B"; the weights in float16 take 257 GB, "up to 260G" (README of the release)."""
    assert_counts(glm_130b, {"glm-130b": 128_697_794_560})


def test_the_authors_numbers(tmp_path):
    assert_vector("glm-130b", tmp_path)


def test_the_formula_from_the_published_tensors():
    """The paper's post-norm form: what the code, whose norms stand before the sublayers, computes."""
    v = vector("glm-130b")
    c = v["config"]
    masks = [c[f"{name}_token_id"] for name in ("mask", "smask", "gmask")]
    own = {"start": c["bos_token_id"], "masks": masks, "counting": c["gmask_token_id"], "layers": 3, "heads": 2}
    assert relative_error(formula(weights_of(v), v["input_ids"], **own), v["logits"]) < CLOSE


def test_positions_and_prefix_are_read_off_the_ids():
    """After [gMASK] places count on; after the others they are the mask's; [MASK] counts before [sMASK] before [gMASK]."""
    places = tiny("glm_130b", **TOKENS).placed(IDS)
    assert places["position_ids"].tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 1, 1], [0, 1, 2, 1, 1]]
    assert places["prefix_lengths"].tolist() == [3, 3, 3]
    both = tiny("glm_130b", **TOKENS).placed(np.array([[SMASK, GMASK, MASK, MASK, SOP]]))
    assert both["position_ids"].tolist() == [[0, 1, 2, 3, 2]]
    assert not tiny("glm_130b").config.reads_places


def test_given_positions_and_prefix_are_the_same_call():
    model = tiny("glm_130b", **TOKENS)
    logits = model(IDS, grad=False)[0]["logits"]
    again = tiny("glm_130b")(IDS, **model.placed(IDS), grad=False)[0]["logits"]
    assert np.array_equal(logits, again)
    assert relative_error(tiny("glm_130b")(IDS, grad=False)[0]["logits"], logits) > 0.01


def test_every_gradient(device):
    targets = np.array([[-100, -100, -100, 5, 1], [-100, -100, -100, 2, 3], [-100, -100, -100, 0, 4]])
    assert_gradients(tiny("glm_130b", device=device, **TOKENS), input_ids=IDS, targets={"logits": targets})


@pytest.mark.parametrize("cached", [True, False])
def test_what_it_writes_is_the_likeliest_token_of_the_whole_pass_each_time(device, cached):
    """A continuation and a blank in the middle, in one batch with padding."""
    model = tiny("glm_130b", device=device, max_sequence_length=12, **TOKENS)
    prompts = [[4, 2, 3, GMASK, SOP], [3, MASK, 5, SOP]]
    found = tinyplm.generate(model, prompts, max_new_tokens=4, temperature=0, cached=cached)
    for prompt, written in zip(prompts, found, strict=True):
        text = list(prompt)
        for _ in range(4):
            logits = to_host(model([text], grad=False)[0]["logits"])
            text.append(int(logits[0, -1].argmax()))
        assert list(written.ids) == text[len(prompt) :]


def test_behind_a_cache_positions_must_be_given():
    model = tiny("glm_130b", **TOKENS)
    places, cache = model.placed(IDS), model.empty_cache(3, 5)
    whole = model(IDS, grad=False)[0]["logits"]
    first = {"position_ids": places["position_ids"][:, :4], "prefix_lengths": places["prefix_lengths"]}
    outputs, _ = model(IDS[:, :4], cache=cache, **first, grad=False)
    rest, _ = model(IDS[:, 4:], cache=outputs["cache"], position_ids=places["position_ids"][:, 4:], grad=False)
    assert relative_error(rest["logits"][:, 0], whole[:, 4]) < MODEL
    with pytest.raises(ValueError, match=re.escape("position_ids: expected the places of these tokens, (3, 1), behind a cache")):
        model(IDS[:, :1], cache=rest["cache"].cut(4), grad=False)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[1, 2, SOP, 3]], f"[MASK] ({MASK}) or [sMASK] ({SMASK}) or [gMASK] ({GMASK}) in each text, or position_ids and"),
        ([[1, GMASK, 2, 3]], f"<sop> ({SOP}) in each text, or position_ids and prefix_lengths, got none in row 0"),
    ],
)
def test_ids_without_a_mask_or_start_are_refused(ids, message):
    with pytest.raises(ValueError, match=re.escape(f"input_ids: expected {message}")):
        tiny("glm_130b", **TOKENS)(ids)


def test_initial_values_are_deepnorm_s():
    """Xavier's normal; feed-forward layers, Wv and Wo times (2 L)^-1/2: within five standard errors of the deviation."""
    sizes = {"vocab_size": 500, "hidden_size": 48, "inner_hidden_size": 96, "num_layers": 8, "num_attention_heads": 4}
    model = tinyplm.create("glm_130b", glm_130b.Config(**sizes, initializer_range=0.05), dtype="float64")
    for path, a in flatten(model.params).items():
        name = path.rsplit(".", 1)[-1]
        if a.ndim == 1:
            assert (a == (name == "gamma")).all(), path
            continue
        std = 0.05 if name == "tokens" else (2 / sum(a.shape)) ** 0.5 * (1 if name in ("Wq", "Wk") else 0.25)
        assert abs(a.std() / std - 1) < 5 / (2 * a.size) ** 0.5, path


def test_rows_of_the_fused_matrices():
    """query_key_value: by head; dense_h_to_4h: the linear half, then the gate."""
    model = tiny("glm_130b")
    hub = to_hub(model.params, glm_130b.renames(model.config))
    p = model.params["body"]["layers"][1]
    rows = np.concatenate([p["attention"][f"b{n}"][2 * h : 2 * h + 2] for h in (0, 1, 2) for n in "qkv"])
    assert np.array_equal(hub["transformer.layers.1.attention.query_key_value.bias"], rows)
    up = np.concatenate([p["mlp"]["Wup"].T, p["mlp"]["Wgate"].T])
    assert np.array_equal(hub["transformer.layers.1.mlp.dense_h_to_4h.weight"], up)


def test_stored_frequencies_are_ignored(tmp_path):
    from safetensors.numpy import load_file, save_file

    v = vector("glm-130b")
    folder = folder_of(v, tmp_path / "theirs")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "transformer.layers.0.attention.rotary_emb.inv_freq": np.ones(2)}, folder / "model.safetensors")
    assert relative_error(tinyplm.load(folder)(v["input_ids"])[0]["logits"], v["logits"]) < CLOSE


def test_the_published_pickles_are_refused_with_advice(tmp_path):
    """As they were unpacked: a file `latest`, and a folder of eight parts."""
    (tmp_path / "latest").write_text("49300")
    (tmp_path / "49300").mkdir()
    (tmp_path / "49300" / "mp_rank_00_model_states.pt").write_bytes(b"no pickle is read")
    for folder in (tmp_path, tmp_path / "49300"):
        with pytest.raises(ValueError, match="got only .pt files, which can run code .families/glm_130b.py says how to join"):
            tinyplm.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_encoding_2d": True}, "position_encoding_2d: expected False for glm_130b, got True"),
        ({"hidden_size": 100}, "hidden_size: expected a multiple of num_attention_heads = 96, got 100"),
        ({"hidden_size": 96}, "width: expected"),
        ({"num_layers": 0}, "num_layers: expected a positive integer, got 0"),
        ({"layernorm_epsilon": -1.0}, "layernorm_epsilon: expected"),
    ],
    ids=str,
)
def test_wrong_configs_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_dict(glm_130b.Config, {"model_type": "glm_130b", **changes})
    assert "\n" not in str(error.value)
