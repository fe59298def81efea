"""Encoders as a user holds them, with inputs checked once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..arguments import known_arguments, mismatch, wrong
from ..core import IGNORED, StackOptions, Tree
from . import checks
from .encoder_heads import loss_head, outputs_head, vocabulary_head
from .heads import logits, with_hidden
from .model import Model
from .parts import Emit, Head, in_parts
from .protocol import Arrays, InParts, LossInputs, LossOptions, Passed
from .several import checked_each, flattened
from .tasks import Task

FLOAT_MASKS = ("perm_mask", "input_mask", "target_mapping")  # 0.0 and 1.0 in XLNet's released code


class EncoderModel(Model):
    """An encoder with the head of its task (see models.tasks)."""

    INPUTS = (*Model.INPUTS, "token_type_ids")

    @known_arguments
    def __call__(
        self,
        input_ids: Any = None,
        *,
        inputs_embeds: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        grad: bool = True,
        key: int | None = None,
        checkpointing: int = 0,
        frozen: int = 0,
        once: bool = False,
        on_gradient: Callable | None = None,
        **inputs: Any,
    ) -> tuple[dict[str, Any], Callable | None]:
        """outputs {"hidden" (B, T, D), and those of the task} and backward.

        input_ids      (B, T) integers, lists or arrays, on the host or on the model's device;
                       (B, choices, T) for a multiple choice
        inputs_embeds  (B, T, E) in place of input_ids, as wide as the embedding table, cast to the
                       model's dtype
        attention_mask (B, T) of 0/1, 1 = a real token
        token_type_ids (B, T), for families that have them
        position_ids   (B, T) or (T,)
        inputs         what the family takes besides (family.INPUTS)
        grad           False: backward is None, and memory stays small
        key            an integer for dropout, None for no dropout
        With several choices all inputs have them on the second axis.
        checkpointing, frozen, once, on_gradient: see core.StackOptions.
        backward(doutputs) gives the gradient tree of params, or (dparams, dinputs_embeds) for
        inputs_embeds.
        ValueError for wrong shapes, ids out of range, a sequence longer than the context, an input
        that this family does not accept.
        """
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        inputs |= {"token_type_ids": token_type_ids, "position_ids": position_ids}
        given = self.inputs(input_ids, inputs_embeds, attention_mask=attention_mask, **inputs)
        return self._call(given, key, stacking)

    @known_arguments
    def loss(
        self,
        *,
        targets: Arrays,
        total: Arrays | None = None,
        smoothing: float = 0.0,
        grad: bool = True,
        checkpointing: int = 0,
        frozen: int = 0,
        once: bool = False,
        on_gradient: Callable | None = None,
        **inputs: Any,
    ) -> tuple[Any, Callable[[Any], Tree] | None]:
        """The loss of the task: the sum of those of the outputs named in targets.

        targets  {"logits": (B, T) of a language model or of tokens, (B,) of sequences or choices,
                 "pair_logits", "start_logits", "end_logits": (B,)}; -100 is ignored
        total    {output: the number of its targets in the whole step}, by default those given
        Each output has the loss of models.tasks.loss_of; the two ends of an answer count half each.
        A language model's head works only on the places that have a target.
        inputs and other options as in a call.  backward(dloss) gives the gradient tree of params.
        """
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        options = LossOptions(smoothing=smoothing)
        return self._loss(inputs, LossInputs(targets, total, options), stacking)

    def head_rows(self, targets: Arrays) -> int:
        """Those of a language model that have a target."""
        return int((targets["logits"] != IGNORED).sum()) if "logits" in targets else 0

    @property
    def _task(self) -> Task:
        return self.family.TASKS[self.task]

    def _outputs_head(self, inputs: Arrays) -> Head:
        choices, inputs = flattened(inputs)
        heads = [outputs_head(self._task, self.config, key=inputs.get("key"), choices=choices)]
        if self._task.language_model is not None:
            heads.append(vocabulary_head(logits, self._task, self.config))
        return with_hidden(*heads)

    def _loss_head(self, inputs: Arrays, loss: LossInputs, *, grad: bool = True) -> Head:
        if loss.options.auxiliary:
            raise wrong("auxiliary", "0 for an encoder", loss.options.auxiliary)
        choices, inputs = flattened(inputs)
        key = inputs.get("key")
        return loss_head(self._task, self.config, loss, grad=grad, key=key, choices=choices)

    def _whole(
        self, head: Head, inputs: Arrays, stacking: StackOptions, targets: Any = None
    ) -> Passed:
        return super()._whole(head, flattened(inputs)[1], stacking, targets)

    def _in_parts(self, emit: Emit, head: Head, inputs: Arrays, stacking: StackOptions) -> InParts:
        inputs = flattened(inputs)[1]
        body, ids = self._body(), (inputs["input_ids"],)
        others = {n: a for n, a in inputs.items() if n != "inputs_embeds"}  # ids tell positions
        return in_parts(body, head, self.params, emit, ids, others, stacking)

    def inputs(
        self, input_ids: Any = None, inputs_embeds: Any = None, **others: Any
    ) -> dict[str, Any]:
        """The inputs checked, and moved to the model's device."""
        if self.task == "multiple_choice":
            one = EncoderModel(
                self.family, self.config, self.params, task="body", device=self.device
            )
            return checked_each(one.inputs, input_ids, inputs_embeds, others)
        input_ids, inputs_embeds, B, T = self._ids_or_embeds(input_ids, inputs_embeds)
        known = {"attention_mask", *self.family.INPUTS}
        known |= {"position_ids"} if "positions" in self.params["body"] else set()
        arrays: dict[str, Any] = {}
        for name, values in others.items():
            if values is not None:
                if name not in known:
                    takes = f"{self.config.MODEL_TYPE} takes only {', '.join(sorted(known))}"
                    raise wrong(name, f"None, since {takes}", values)
                arrays[name] = self._checked(name, values, B, T)
        return self._moved({"input_ids": input_ids, "inputs_embeds": inputs_embeds, **arrays})

    def _checked(self, name: str, values: Any, B: int, T: int) -> Any:
        """A mask, or numbers of positions or token types; shapes in the family's OWN_SHAPES are
        checked by its body."""
        if name == "mems":
            a = checks.as_array(name, values, "an array of floating-point numbers", "f")
        elif name in ("attention_mask", *FLOAT_MASKS):
            a = checks.zeros_and_ones(name, values, floats=name in FLOAT_MASKS)
        else:
            a = checks.ids(name, values)
        if name in getattr(self.family, "OWN_SHAPES", ()):
            if a.ndim < 2:
                raise wrong(name, f"an array with {B} samples on its first axis", values)
            return a
        expected = ((T,), (B, T)) if name == "position_ids" else ((B, T),)
        if a.shape not in expected:
            raise mismatch(name, f"shape {' or '.join(map(str, expected))}", a.shape)
        tables = {"position_ids": "positions", "token_type_ids": "segments"}
        table = self.params["body"].get(tables.get(name))
        if table is not None:
            checks.check_range(name, a, table.shape[0])
        return a
