"""Golden vectors of families that transformers lacks: tests/vectors/*.npz, see the README there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.laws import relative_error
from tinyplm.core import flatten
from tinyplm.hub import gradients_by_hub_name, load, save
from tinyplm.models.names import hub_shapes, names_of

FOLDER = Path(__file__).parents[1] / "vectors"
CLOSE = 1e-9


def vector(name: str) -> dict[str, Any]:
    """The arrays of one file, its config as a dict, and the gradients as {hub name: array}."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    gradients = {key.removeprefix("grad/"): arrays.pop(key) for key in list(arrays) if key.startswith("grad/")}
    return {**arrays, "config": json.loads(str(arrays["config"])), "gradients": gradients}


def weights(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """{hub name: values} from the seed: in the order of the names, N(0, 0.4^2), gains of norms plus 1."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.4, shapes[name]) + ("norm" in name or "ln_" in name) for name in sorted(shapes)}


def weights_of(expected: dict[str, Any]) -> dict[str, np.ndarray]:
    """The weights that the numbers of one file were computed with."""
    shapes = {name: gradient.shape for name, gradient in expected["gradients"].items()}
    return weights(shapes, int(expected["seed"]))


def folder_of(expected: dict[str, Any], folder: Path) -> Path:
    """A folder as the authors' code writes it, in float64."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(expected["config"]), encoding="utf-8")
    save_file(weights_of(expected), folder / "model.safetensors")
    return folder


def assert_vector(name: str, tmp_path: Path) -> Any:
    """Logits, loss and all gradients equal those of the authors' code; files both ways.  -> the model"""
    expected = vector(name)
    ids, labels = expected["input_ids"], expected["labels"]
    model = load(folder_of(expected, tmp_path / "theirs"))
    assert relative_error(model(ids, grad=False)[0]["logits"], expected["logits"]) < CLOSE
    mask = expected["attention_mask"]
    padded = model(ids, attention_mask=mask, grad=False)[0]["logits"]
    assert relative_error(padded[mask == 1], expected["padded_logits"][mask == 1]) < CLOSE
    targets = np.concatenate([labels[:, 1:], np.full((len(labels), 1), -100)], axis=1)
    loss, backward = model.loss(input_ids=ids, targets={"logits": targets})
    assert abs(loss - expected["loss"]) < CLOSE * expected["loss"]
    gradients = gradients_by_hub_name(model, backward(1.0))
    assert gradients.keys() == expected["gradients"].keys()
    for hub, gradient in expected["gradients"].items():
        assert gradients[hub].shape == gradient.shape and relative_error(gradients[hub], gradient) < CLOSE, hub
    assert_files(model, expected, tmp_path)
    return model


def assert_files(model: Any, expected: dict[str, Any], tmp_path: Path) -> None:
    """What we write has the names, shapes and values of what we read, and reads back bit-equal."""
    shapes = {name: gradient.shape for name, gradient in expected["gradients"].items()}
    assert hub_shapes(model.params, names_of(model.family, model.config)) == shapes
    save(model, tmp_path / "ours")
    again = load(tmp_path / "ours")
    for path, a in flatten(model.params).items():
        assert np.array_equal(a, flatten(again.params)[path]), path
    assert again.config == model.config
    written = json.loads((tmp_path / "ours" / "config.json").read_text(encoding="utf-8"))
    assert written == {**expected["config"], "architectures": [model.config.ARCHITECTURE]}
