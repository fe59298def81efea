"""Prefixes from the files of ChatGLM's P-tuning v2: the authors' numbers, files with and without the model, bad ones."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tinyplm
from tests.laws import relative_error
from tests.support.families import tiny
from tests.support.vectors import CLOSE, FOLDER, folder_of, vector, weights
from tinyplm.core import flatten
from tinyplm.generation import generate
from tinyplm.tuning import load_prefix, load_ptuned, prefix_of, save_prefix, with_prefix

NAME = "transformer.prefix_encoder."
EACH = [(name, kind) for name in ("chatglm-6b", "chatglm3-6b") for kind in ("plain", "projected")]
each = pytest.mark.parametrize(("name", "kind"), EACH)


def theirs(name, kind):
    """(the arrays of one kind in a vector's file; the prefix's tensors; {tensor: gradient})."""
    with np.load(FOLDER / f"{name}-prefix.npz", allow_pickle=False) as file:
        own = {key.removeprefix(f"{kind}/"): file[key] for key in file.files if not key.startswith(("plain/", "projected/"))
               or key.startswith(f"{kind}/")}  # fmt: skip
    gradients = {key.removeprefix("grad/"): own[key] for key in own if key.startswith("grad/")}
    return own, weights({n: g.shape for n, g in gradients.items()}, int(own["seed"])), gradients


def written(folder, name, kind, *, whole=True, **settings):
    """A folder as the authors' code leaves it: the whole model, or the prefix alone."""
    v = vector(name)
    folder_of(v, folder)
    config = {**v["config"], "pre_seq_len": 3, "prefix_projection": kind == "projected", **settings}
    (folder / "config.json").write_text(json.dumps(config))
    model = load_file(folder / "model.safetensors") if whole else {}
    save_file({**model, **theirs(name, kind)[1]}, folder / "model.safetensors")
    return folder


@each
def test_the_authors_numbers(name, kind, tmp_path):
    """Logits and loss, and the gradients of the keys and values by that of the table."""
    own, _, gradients = theirs(name, kind)
    model, theta = load_ptuned(written(tmp_path / "theirs", name, kind))
    tuned = with_prefix(model, theta)
    assert relative_error(tuned(own["input_ids"], grad=False)[0]["logits"], own["logits"]) < CLOSE
    targets = np.concatenate([own["labels"][:, 1:], np.full((2, 1), -100)], axis=1)
    loss, backward = tuned.loss(input_ids=own["input_ids"], targets={"logits": targets})
    assert abs(loss - own["loss"]) < CLOSE * own["loss"]
    found, L = flatten(backward(1.0)), model.config.num_layers
    rows = np.stack(
        [found[f"body.layers.{i}.attention.{n}"].swapaxes(0, 1).reshape(3, -1) for i in range(L) for n in ("Pk", "Pv")], 1
    )
    drows = rows.reshape(3, -1)
    if kind == "plain":
        assert relative_error(drows, gradients[f"{NAME}embedding.weight"]) < CLOSE
    else:
        assert relative_error(drows.sum(0), gradients[f"{NAME}trans.2.bias"]) < CLOSE


@each
def test_a_prefix_without_its_model(name, kind, tmp_path):
    """The whole folder, and the prefix beside the untuned model, give the same."""
    _, theta = load_ptuned(written(tmp_path / "whole", name, kind))
    base = tinyplm.load(folder_of(vector(name), tmp_path / "base"))
    model, alone = load_ptuned(written(tmp_path / "alone", name, kind, whole=False), base=base)
    assert model is base and alone.keys() == theta.keys()
    assert all(np.array_equal(alone[path], a) for path, a in theta.items())
    save_prefix(alone, tmp_path / "ours")
    again = load_prefix(tmp_path / "ours")
    assert all(np.array_equal(again[path], a) for path, a in theta.items())
    assert prefix_of(base, theta=theta)["theta"] is theta


def test_the_model_alone_of_a_tuned_folder(tmp_path):
    folder, v = written(tmp_path / "theirs", "chatglm-6b", "plain"), vector("chatglm-6b")
    with pytest.raises(ValueError, match="pre_seq_len: expected None; tuning.load_ptuned reads the model and its prefix, got 3"):
        tinyplm.load(folder)
    model = tinyplm.load(folder, prefix=False)
    assert relative_error(model(v["input_ids"], grad=False)[0]["logits"], v["logits"]) < CLOSE
    tinyplm.save(model, tmp_path / "ours")
    assert "pre_seq_len" not in json.loads((tmp_path / "ours" / "config.json").read_text())
    assert tinyplm.load(tmp_path / "ours").config == model.config


@pytest.mark.parametrize("cached", [True, False])
def test_what_a_tuned_model_writes(cached, tmp_path):
    """The likeliest token of the whole pass each time: positions count from 0 behind the prefix."""
    v = vector("chatglm-6b")
    tuned = with_prefix(*load_ptuned(written(tmp_path / "theirs", "chatglm-6b", "plain")))
    prompt = [2, 3, v["config"]["gmask_token_id"], v["config"]["bos_token_id"]]
    text = list(prompt)
    for _ in range(3):
        text.append(int(tuned([text], grad=False)[0]["logits"][0, -1].argmax()))
    assert list(generate(tuned, [prompt], max_new_tokens=3, temperature=0, cached=cached, stop_ids=[])[0].ids) == text[4:]


def test_half_precision_is_computed_in_float32(tmp_path):
    folder = written(tmp_path / "theirs", "chatglm3-6b", "projected")
    _, exact = load_ptuned(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({n: a.astype("float16" if NAME in n else "float32") for n, a in tensors.items()}, folder / "model.safetensors")
    _, theta = load_ptuned(folder)
    for path, a in theta.items():  # each of some 50 terms rounded to 2^-11, those of the tanh's argument as well
        assert a.dtype == "float32" and relative_error(a, exact[path]) < 50 * 2**-11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(f"{NAME}embedding.weight"), "embedding.weight, alone or with prefix_encoder.trans.0 and trans.2"),
        (lambda t: t.pop(f"{NAME}trans.2.bias"), "got embedding.weight, trans.0.bias, trans.0.weight, trans.2.weight"),
        (lambda t: t.update({f"{NAME}more": np.ones(2)}), "got embedding.weight, more, trans.0.bias"),
        (lambda t: t.update({f"{NAME}trans.2.bias": np.ones(7)}), "trans.2.bias: expected shape (48) for this model, got (7,)"),
        (lambda t: t.update({f"{NAME}trans.0.weight": np.ones((6, 5))}), "trans.0.weight: expected shape (6, 48) for this"),
        (lambda t: t.update({f"{NAME}embedding.weight": np.ones(7)}), "embedding.weight: expected shape (P, A) for this model"),
        (lambda t: t.update({f"{NAME}trans.0.bias": np.full(6, np.nan)}), "trans.0.bias: expected finite numbers, got NaN"),
        (lambda t: t.update({f"{NAME}embedding.weight": np.ones((4, 48))}), "pre_seq_len: expected 4, the rows of the prefix"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_in_one_line(change, message, tmp_path):
    folder = written(tmp_path / "theirs", "chatglm3-6b", "projected")
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_ptuned(folder)
    assert "\n" not in str(error.value)


def test_another_model_is_refused(tmp_path):
    folder = written(tmp_path / "theirs", "chatglm3-6b", "plain", whole=False)
    with pytest.raises(ValueError, match=re.escape("embedding.weight: expected shape (3, 16) for this model, got (3, 48)")):
        load_ptuned(folder, base=tiny("glm_130b", num_layers=2, num_attention_heads=1, hidden_size=4))
    with pytest.raises(ValueError, match="model: expected"):
        load_ptuned(folder, base="chatglm")
