"""The model that a user holds: a family, its config and its parameters.  What it computes is CausalModel's and EncoderModel's."""

from __future__ import annotations

import copy
import importlib
import uuid
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from ..arguments import wrong
from ..backend import is_host, to_device
from ..core import Tree, flatten, tree_map
from . import checks

DTYPES = ("float32", "float64", "float16")  # of parameters


class Model:
    """`outputs, backward = model(input_ids, attention_mask=...)`; everything is in plain attributes.

    family     the module (tinyplm.families.gpt2, ...)
    config     its frozen Config
    task       what the head is for: "causal_lm", or one of the family's TASKS
    params     the tree of trained arrays; buffers: what is saved but not trained
    tokenizer  or None; no_tokenizer then says why
    device     the name of the device that params are on
    file_dtypes  {hub name: "F32", "BF16", ...} as read, so that saving writes the same back
    generation   the contents of generation_config.json, {} if there was none
    fresh        paths of parameters that the loaded file did not have, and that are newly initialised
    files        {name: bytes} of small files that were read with the model and are written back with it
    copied       paths of params that repeat another one (see CausalModel.for_decoding)
    origin       a random name, by which a cache knows the model that filled it; copies and pickles keep it.  So does assigning to
                 params: a cache that was filled before is then out of date, and nothing notices
    """

    INPUTS: ClassVar[tuple[str, ...]] = ("input_ids", "inputs_embeds", "attention_mask", "position_ids")

    def __init__(self, family: ModuleType, config: Any, params: Tree, *, task: str = "causal_lm", buffers: Tree = None,
                 tokenizer: Any = None, device: str = "cpu", file_dtypes: dict[str, str] | None = None) -> None:  # fmt: skip
        self.family, self.config, self.task = family, config, task
        self.params, self.buffers = params, buffers or {}
        self.tokenizer, self.device, self.file_dtypes = tokenizer, device, file_dtypes or {}
        self.no_tokenizer = "none was given"
        self.generation: dict[str, Any] = {}
        self.fresh: list[str] = []
        self.files: dict[str, bytes] = {}
        self.copied: tuple[str, ...] = ()
        self.origin = uuid.uuid4().hex

    def __repr__(self) -> str:
        name = self.config.MODEL_TYPE if self.task == "causal_lm" else f"{self.config.MODEL_TYPE} {self.task}"
        return f"<{name} model, {self.parameter_count():,} parameters, {self.dtype}, on {self.device}>"

    @property
    def dtype(self) -> Any:
        leaf = self.params  # the first one; asked for with every token, so without a list of all
        while isinstance(leaf, (dict, list)):
            leaf = next(iter(leaf.values() if isinstance(leaf, dict) else leaf))
        return leaf.dtype

    def parameter_count(self) -> int:
        """How many numbers the model has; a tied table counts once, even where it is stored twice (`copied`)."""
        return sum(a.size for path, a in flatten(self.params).items() if path not in self.copied)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which cannot hold a module: its name."""
        return {**self.__dict__, "family": self.family.__name__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, family=importlib.import_module(state["family"]))

    def to(self, device: str) -> Model:
        """The same model with its arrays on another device.  ValueError if this machine does not have it."""
        return self._with(params=to_device(self.params, device), buffers=to_device(self.buffers, device), device=device,
                          origin=self.origin)  # fmt: skip

    def astype(self, dtype: Any) -> Model:
        """The same model with parameters of dtype "float32", "float64" or "float16"; saved in that dtype as well."""
        dtype = check_dtype(dtype)
        return self._with(params=tree_map(lambda a: a.astype(dtype), self.params), file_dtypes={})

    def _with(self, **changes: Any) -> Model:
        other = copy.copy(self)
        other.__dict__.update({"origin": uuid.uuid4().hex, **changes} if "params" in changes else changes)
        return other

    def check_causal(self) -> None:
        """ValueError unless it goes on with a text token by token."""
        if self.task != "causal_lm":
            raise ValueError(f"{self!r} cannot continue a text: expected a decoder")

    def text_tokenizer(self) -> Any:
        """The tokenizer, where text is asked for; ValueError that says why there is none."""
        if self.tokenizer is None:
            raise ValueError(f"text needs a tokenizer, and the model has none: {self.no_tokenizer}")
        return self.tokenizer

    def _ids_or_embeds(self, input_ids: Any, inputs_embeds: Any) -> tuple[Any, Any]:
        """One of the two, checked, as arrays of any device."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("expected either input_ids or inputs_embeds, and not both")
        if inputs_embeds is not None:
            inputs_embeds = checks.as_array("inputs_embeds", inputs_embeds, "real numbers", "fiu")
            D = self.params["body"]["tokens"].shape[1]
            if inputs_embeds.ndim != 3 or inputs_embeds.shape[2] != D or 0 in inputs_embeds.shape:
                raise ValueError(f"inputs_embeds: expected shape (B, T, {D}) with B, T >= 1, got {inputs_embeds.shape}")
            return None, inputs_embeds.astype(self.dtype, copy=False)
        input_ids = checks.ids("input_ids", input_ids)
        if input_ids.ndim != 2 or 0 in input_ids.shape:
            raise ValueError(f"input_ids: expected shape (B, T) with B, T >= 1, got {input_ids.shape}")
        checks.check_range("input_ids", input_ids, self.config.vocab_size)
        return input_ids, None

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The keywords of a loss or of outputs in parts, after the checks of `inputs` on those that are inputs of the model."""
        names = {*self.INPUTS, *getattr(self.family, "INPUTS", ())} & options.keys()
        inputs = self.inputs(**{name: options[name] for name in names})
        return {**options, **{name: inputs.get(name) for name in names}}

    def _checked_loss(self, where: str, targets: Any, total: Any, options: Mapping[str, Any], *known: str) -> dict[str, Any]:
        """All keywords of a loss, on the model's device; `known` are those that are neither inputs nor of the stack."""
        names = (*self.INPUTS, *getattr(self.family, "INPUTS", ()), *checks.STACKING, "key", "grad", *known)
        checks.check_options(where, options, *dict.fromkeys(names))
        checks.check_total(total)
        targets = self._moved(checks.checked_targets(targets))
        options = self.checked(options)
        if "key" in options:
            embeds = options.get("inputs_embeds")
            options["key"] = checks.sample_keys(options["key"], options["input_ids"] if embeds is None else embeds)
        return {**options, "targets": targets, "total": total}

    def _moved(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Arrays of the host moved to the model's device."""
        if self.device == "cpu":
            return inputs
        return {name: to_device(a, self.device) if a is not None and is_host(a) else a for name, a in inputs.items()}


def check_dtype(dtype: Any) -> str:
    """The name of a dtype that parameters may have."""
    try:
        name = "" if dtype is None else np.dtype(dtype).name
    except Exception:  # NumPy has several errors for what is no dtype
        name = ""
    if name not in DTYPES:
        raise wrong("dtype", f"one of {', '.join(DTYPES)}", dtype)
    return name


def check_model(name: str, value: Any) -> None:
    """ValueError unless it is a model."""
    if not isinstance(value, Model):
        raise wrong(name, "a model, as tinyplm.load or tinyplm.create gives it", value)


def check_decoder(name: str, value: Any) -> None:
    """ValueError unless it is a model that goes on with a text token by token."""
    check_model(name, value)
    value.check_causal()
