"""The model that a user holds: a family, its config and its parameters.

What it computes is defined by CausalModel, ScoreModel and EncoderModel: a head for a call, one for
the loss and one for the recipes, each put on the family's body by models.parts.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import uuid
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..arguments import check_function, check_names, mismatch, wrong
from ..backend import is_host, to_device
from ..core import StackOptions, Tree, flatten, tree_map
from ..core.named import call_of
from . import checks, parts, walks
from .parts import Body, Head
from .protocol import Arrays, Emit, InParts, LossInputs, LossOptions, OutputOptions, Passed
from .routed import active_parameters, is_routed

M = TypeVar("M", bound="Model")
INFERENCE = StackOptions(grad=False)
DTYPES = ("float32", "float64", "float16")  # of parameters


class Model:
    """`outputs, backward = model(input_ids, attention_mask=...)`; all attributes are plain.

    family       the module (tinyplm.families.gpt2, ...)
    config       its frozen Config
    task         what the head is for: "causal_lm", "seq2seq_lm", or another of the family's tasks
    params       the tree of trained arrays; buffers: saved but not trained
    tokenizer    or None; no_tokenizer then says why
    device       the name of the device that params are on
    file_dtypes  {hub name: "F32", "BF16", ...} as read; saving writes the same dtypes
    generation   the contents of generation_config.json, {} if there was none
    fresh        paths of parameters missing from the loaded file, which are newly initialised
    files        {name: bytes} of small files read with the model and written back with it
    copied       paths of params that repeat another one (see LanguageModel.for_decoding)
    origin       a random name by which a cache knows the model that filled it.  Copies and pickles
                 keep it; so does assigning to params, after which an older cache is out of date
                 without notice
    """

    INPUTS: ClassVar[tuple[str, ...]] = (
        "input_ids",
        "inputs_embeds",
        "attention_mask",
        "position_ids",
    )

    def __init__(
        self,
        family: ModuleType,
        config: Any,
        params: Tree,
        *,
        task: str = "causal_lm",
        buffers: Tree = None,
        tokenizer: Any = None,
        device: str = "cpu",
        file_dtypes: dict[str, str] | None = None,
    ) -> None:
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
        task = "" if self.task == "causal_lm" else f" {self.task}"
        count, active = self.parameter_count(), self.active_parameter_count()
        shown = f"{count:,} parameters" + (f", {active:,} active" if active < count else "")
        return f"<{self.config.MODEL_TYPE}{task} model, {shown}, {self.dtype}, on {self.device}>"

    @property
    def dtype(self) -> Any:
        leaf = self.params  # the first leaf; needed for every token, so without flatten
        while isinstance(leaf, (dict, list)):
            leaf = next(iter(leaf.values() if isinstance(leaf, dict) else leaf))
        return leaf.dtype

    def parameter_count(self) -> int:
        """The number of parameters; a tied table counts once, even if it is stored twice."""
        return sum(a.size for a in self._counted().values())

    def active_parameter_count(self) -> int:
        """The number of parameters that a token passes through: of all experts those it chooses."""
        if not is_routed(self.family):
            return self.parameter_count()
        return active_parameters(self._counted(), self.config.top_k)

    def _counted(self) -> dict[str, Any]:
        return {path: a for path, a in flatten(self.params).items() if path not in self.copied}

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy or a pickle, which cannot hold a module but its name."""
        return {**self.__dict__, "family": self.family.__name__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, family=importlib.import_module(state["family"]))

    def to(self, device: str) -> Model:
        """The same model on another device.  ValueError if this machine does not have it."""
        params, buffers = to_device(self.params, device), to_device(self.buffers, device)
        return self._with(params=params, buffers=buffers, device=device, origin=self.origin)

    def astype(self, dtype: Any) -> Model:
        """The same model with parameters of another dtype, "float32", "float64" or "float16", in
        which it is also saved."""
        dtype = check_dtype(dtype)
        trees = {"params": self.params, "buffers": self.buffers}
        return self._with(**tree_map(lambda a: a.astype(dtype), trees), file_dtypes={})

    @property
    def width(self) -> int:
        """The number of columns of the embedding table."""
        return self.params["body"]["tokens"].shape[1]

    def with_params(self: M, params: Tree) -> M:
        """The same model with other parameters, which a file keeps in their own dtype."""
        return self._with(params=params, file_dtypes={})

    def _with(self: M, **changes: Any) -> M:
        other = copy.copy(self)
        fresh = {"origin": uuid.uuid4().hex} if "params" in changes else {}
        other.__dict__.update(fresh | changes)
        return other

    def check_causal(self, name: str = "model") -> None:
        """ValueError unless the model generates text token by token."""
        if self.task != "causal_lm":
            raise ValueError(f"{name}: expected a decoder that generates text, got {self!r}")

    def text_tokenizer(self) -> Any:
        """The tokenizer; ValueError with the reason if there is none."""
        if self.tokenizer is None:
            expected = "expected a model with one, for text"
            raise ValueError(f"tokenizer: {expected}, got one without: {self.no_tokenizer}")
        return self.tokenizer

    def _ids_or_embeds(
        self,
        input_ids: Any,
        inputs_embeds: Any,
        before: int = 0,
        longest: int | None = None,
        *,
        prefix: str = "",
    ) -> tuple[Any, Any, int, int]:
        """(ids or None, embeddings or None, B, T), checked; `before` tokens precede them.

        longest: the most tokens, the context unless given.   prefix: of the names of the arguments.
        """
        ids, embeds = f"{prefix}input_ids", f"{prefix}inputs_embeds"
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(f"expected either {ids} or {embeds}, and not both")
        if inputs_embeds is not None:
            inputs_embeds = checks.as_array(embeds, inputs_embeds, "real numbers", "fiu")
            D, shape = self.width, inputs_embeds.shape
            if len(shape) != 3 or shape[2] != D or 0 in shape:
                raise mismatch(embeds, f"shape (B, T, {D}) with B, T >= 1", shape)
            name, inputs_embeds = embeds, inputs_embeds.astype(self.dtype, copy=False)
        else:
            name, input_ids = ids, checks.ids(ids, input_ids)
            shape = input_ids.shape
            if len(shape) != 2 or 0 in shape:
                raise mismatch(ids, "shape (B, T) with B, T >= 1", shape)
            checks.check_range(ids, input_ids, self.config.vocab_size)
        context = self.config.context if longest is None else longest
        length = before + shape[1]
        if context is not None and length > context:
            raise mismatch(name, f"at most {context} tokens, the context", length)
        return input_ids, inputs_embeds, *shape[:2]

    def checked(self, inputs: Arrays) -> dict[str, Any]:
        """The inputs of a body, checked by `inputs`; "key" becomes one key for each sample."""
        arrays = dict(inputs)
        key = arrays.pop("key", None)
        return self._keyed(self.inputs(**arrays), key)

    def _keyed(self, inputs: Arrays, key: Any) -> dict[str, Any]:
        """Checked inputs with one key for each sample."""
        embeds = inputs.get("inputs_embeds")
        first = inputs["input_ids"] if embeds is None else embeds
        return {**inputs, "key": checks.sample_keys(key, first)}

    def outputs(self, inputs: Arrays) -> dict[str, Any]:
        """The outputs of inputs that are already checked, without gradients."""
        return self._whole(self._outputs_head(inputs), inputs, INFERENCE)[0]

    def loss(
        self, *, targets: Arrays, total: Arrays | None = None, grad: bool = True, **inputs: Any
    ) -> tuple[Any, Callable[[Any], Tree] | None]:
        """See models.protocol.Trainable."""
        return self._loss(inputs, LossInputs(targets, total), StackOptions(grad=grad))

    def loss_in_parts(
        self,
        emit: Emit,
        inputs: Arrays,
        *,
        targets: Arrays,
        total: Arrays | None = None,
        options: LossOptions = LossOptions(),
        stacking: StackOptions = StackOptions(),
    ) -> InParts:
        """See models.protocol.Trainable."""
        inputs = self._training_inputs(emit, inputs, (options, LossOptions), stacking)
        head = self._loss_head(inputs, LossInputs(targets, total, options))
        return self._in_parts(emit, head, inputs, stacking)

    def outputs_in_parts(
        self,
        emit: Emit,
        inputs: Arrays,
        *,
        targets: Arrays | None = None,
        options: OutputOptions = OutputOptions(),
        stacking: StackOptions = StackOptions(),
    ) -> tuple[dict[str, Any], Callable[[Arrays], list[Tree]]]:
        """See models.protocol.Trainable."""
        inputs = self._training_inputs(emit, inputs, (options, OutputOptions), stacking)
        head = self._training_head(inputs, targets, options)
        return self._in_parts(emit, head, inputs, stacking)

    def _training_inputs(
        self, emit: Any, inputs: Any, options: tuple[Any, type], stacking: Any
    ) -> dict[str, Any]:
        """The inputs checked, of a call whose gradient comes in parts; options: (given, type)."""
        check_function("emit", emit)
        if not isinstance(inputs, Mapping) or inputs.get("input_ids") is None:
            raise wrong("inputs", "a dict of arrays with input_ids", inputs)
        if inputs.get("cache") is not None:
            raise wrong("inputs: cache", "None in training", inputs["cache"])
        for name, given, kind in (("options", *options), ("stacking", stacking, StackOptions)):
            if not isinstance(given, kind):
                raise wrong(name, kind.__name__, given)
        return self.checked(inputs)

    def head_rows(self, targets: Arrays) -> int:
        """See models.protocol.Trainable."""
        raise NotImplementedError

    # what a kind of model defines

    def inputs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The inputs of a call checked, and moved to the model's device."""
        raise NotImplementedError

    def _outputs_head(self, inputs: Arrays) -> Head:
        """The head of a call: the outputs that the class documents, and "hidden"."""
        raise NotImplementedError

    def _loss_head(self, inputs: Arrays, loss: LossInputs, *, grad: bool = True) -> Head:
        """The head whose value is the loss."""
        raise NotImplementedError

    def _training_head(self, inputs: Arrays, targets: Any, options: OutputOptions) -> Head:
        """The head of outputs_in_parts, by default that of a call."""
        return self._outputs_head(inputs)

    def _body(self) -> Body:
        """What makes hidden states from the inputs."""
        return walks.traceable_body(self.family, self.config)

    def _whole(
        self, head: Head, inputs: Arrays, stacking: StackOptions, targets: Any = None
    ) -> Passed:
        """parts.whole of this model, for inputs that are already checked; targets: for a trace."""
        run = call_of(self, parts.whole, targets)
        return run(self._body(), head, self.params, inputs, stacking)

    def _in_parts(self, emit: Emit, head: Head, inputs: Arrays, stacking: StackOptions) -> InParts:
        """parts.in_parts of this model, for inputs that are already checked."""
        others = {n: a for n, a in inputs.items() if n not in ("input_ids", "inputs_embeds")}
        ids = (inputs["input_ids"],)
        return parts.in_parts(self._body(), head, self.params, emit, ids, others, stacking)

    def _call(self, inputs: Arrays, key: Any, stacking: StackOptions) -> Passed:
        """outputs and backward(doutputs) of a call: dparams, or a pair for inputs_embeds."""
        inputs = self._keyed(inputs, key)
        outputs, back = self._whole(self._outputs_head(inputs), inputs, stacking)
        return outputs, back if inputs["inputs_embeds"] is not None else first_gradient(back)

    def _loss(self, inputs: Arrays, loss: LossInputs, stacking: StackOptions) -> Passed:
        """loss and backward(dloss) -> dparams."""
        known = {*self.INPUTS, *getattr(self.family, "INPUTS", ()), "key"}
        if not inputs.keys() <= known:
            own = [name for name in inspect.signature(self.loss).parameters if name != "inputs"]
            check_names("loss", inputs, [*own, *sorted(known.difference(own))])
        checks.check_total(loss.total)
        loss = loss._replace(targets=self._moved(checks.checked_targets(loss.targets)))
        inputs = self.checked(inputs)
        head = self._loss_head(inputs, loss, grad=stacking.grad)
        value, back = self._whole(head, inputs, stacking, loss.targets)
        return value, first_gradient(back)

    def _moved(self, inputs: Arrays) -> dict[str, Any]:
        """Arrays of the host moved to the model's device."""
        if self.device == "cpu":
            return dict(inputs)
        return {
            name: to_device(a, self.device) if a is not None and is_host(a) else a
            for name, a in inputs.items()
        }


def first_gradient(back: Callable | None) -> Callable | None:
    """A backward that gives the first gradient alone."""
    return None if back is None else lambda dvalue: back(dvalue)[0]


def check_dtype(dtype: Any) -> str:
    """The name of a dtype that parameters may have."""
    try:
        name = "" if dtype is None else np.dtype(dtype).name
    except Exception:  # NumPy raises several errors for what is not a dtype
        name = ""
    if name not in DTYPES:
        raise wrong("dtype", f"one of {', '.join(DTYPES)}", dtype)
    return name


def check_model(name: str, value: Any) -> None:
    """ValueError unless it is a model."""
    if not isinstance(value, Model):
        raise wrong(name, "a model, as tinyplm.load or tinyplm.create gives it", value)


def check_decoder(name: str, value: Any) -> None:
    """ValueError unless it is a model that generates text token by token."""
    check_model(name, value)
    value.check_causal(name)
