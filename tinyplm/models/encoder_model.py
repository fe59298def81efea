"""Encoders as a user holds them: inputs checked at this one border."""

from __future__ import annotations

from typing import Any

from ..arguments import known_arguments, wrong
from ..core import IGNORED
from . import checks, encoder_task
from .model import Model

FLOAT_MASKS = ("perm_mask", "input_mask", "target_mapping")  # floats in XLNet's released code, so 0.0 and 1.0 are accepted


class EncoderModel(Model):
    """An encoder with the head of its task (see models.tasks)."""

    INPUTS = (*Model.INPUTS, "token_type_ids")

    @known_arguments
    def __call__(self, input_ids=None, *, inputs_embeds=None, attention_mask=None, token_type_ids=None, position_ids=None,
                 grad=True, key: int | None = None, **others):  # fmt: skip
        """outputs {"hidden" (B, T, D), and those of the task} and backward.

        input_ids (B, T) integers, lists or arrays, on the host or on the model's device, for a multiple choice (B, choices, T);
        or inputs_embeds (B, T, E), as wide as the table of tokens, cast to the model's dtype.
        attention_mask (B, T) of 0/1, 1 = a real token.  token_type_ids (B, T), where the family has them.  position_ids (B, T) or
        (T,).  With several choices all of these have them on the second axis.
        grad=False: backward is None, and memory stays small.  key: an int for dropout, None for none.
        others: what a family has beside these (family.INPUTS), and checkpointing, once, on_gradient (see core.stack).
        backward(doutputs) gives the gradient tree of params, or (dparams, dinputs_embeds) when those were given.
        ValueError for wrong shapes, ids out of range, a sequence longer than the positions, an input that the family has not.
        """
        checks.check_options("model", {"grad": grad}, "grad")
        inputs = self.inputs(input_ids, inputs_embeds, attention_mask=attention_mask, token_type_ids=token_type_ids,
                             position_ids=position_ids, **others)  # fmt: skip
        embeds = inputs.pop("inputs_embeds")
        key = checks.sample_keys(key, inputs["input_ids"] if embeds is None else embeds)
        outputs, back = encoder_task.forward(self.family, self.params, embeds, config=self.config, task=self.task, grad=grad,
                                             key=key, **inputs)  # fmt: skip
        if embeds is None and grad:
            return outputs, lambda doutputs: back(doutputs)[0]
        return outputs, back

    def outputs(self, **inputs):
        """The outputs without gradients, of inputs that were checked before."""
        return encoder_task.forward(self.family, self.params, config=self.config, task=self.task, grad=False, **inputs)[0]

    @known_arguments
    def loss(self, *, targets, total=None, **options):
        """encoder_task.loss of this model's task; inputs as in a call."""
        options = self._checked_loss("loss", targets, total, options, "smoothing")
        return encoder_task.loss(self.family, self.params, config=self.config, task=self.task, **options)

    def loss_in_parts(self, give, **options):
        """encoder_task.loss_in_parts of this model's task."""
        options = self.checked(options)
        return encoder_task.loss_in_parts(self.family, self.params, give, config=self.config, task=self.task, **options)

    def head_rows(self, targets) -> int:
        """For how many places a language model's head is computed: those with a target."""
        return int((targets["logits"] != IGNORED).sum()) if "logits" in targets else 0

    def inputs(self, input_ids=None, inputs_embeds=None, **others: Any) -> dict[str, Any]:
        """The inputs checked, and moved to the model's device."""
        if self.task == "multiple_choice":
            return self._choices(input_ids, inputs_embeds, **others)
        input_ids, inputs_embeds = self._ids_or_embeds(input_ids, inputs_embeds)
        B, T = (input_ids if inputs_embeds is None else inputs_embeds).shape[:2]
        context = self.config.context
        if context is not None and T > context:
            raise ValueError(f"a sequence of {T} tokens is longer than the context of {context}")
        known = {"attention_mask", *self.family.INPUTS, *(["position_ids"] if "positions" in self.params["body"] else [])}
        stacking = {name: values for name, values in others.items() if name in checks.STACKING}
        checks.check_options("model", stacking, *checks.STACKING)
        arrays: dict[str, Any] = {}
        for name, values in others.items():
            if name in stacking:
                arrays[name] = values
            elif values is not None:
                if name not in known:
                    raise ValueError(f"{self.config.MODEL_TYPE} has no {name}; expected some of {', '.join(sorted(known))}")
                arrays[name] = self._checked(name, values, B, T)
        return self._moved({"input_ids": input_ids, "inputs_embeds": inputs_embeds, **arrays})

    def _checked(self, name: str, values: Any, B: int, T: int) -> Any:
        """A mask, or numbers of positions or token types; what has a shape of its own is left to the family's body."""
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
            raise ValueError(f"{name}: expected shape {' or '.join(map(str, expected))}, got {a.shape}")
        table = self.params["body"].get({"position_ids": "positions", "token_type_ids": "segments"}.get(name))
        if table is not None:
            checks.check_range(name, a, table.shape[0])
        return a

    def _choices(self, input_ids: Any, inputs_embeds: Any, **others: Any) -> dict[str, Any]:
        """Those of a multiple choice: each choice is checked as a sample of its own."""
        if inputs_embeds is not None:
            raise ValueError("multiple_choice: expected input_ids, not inputs_embeds")
        input_ids = checks.ids("input_ids", input_ids)
        if input_ids.ndim != 3 or 0 in input_ids.shape:
            raise ValueError(f"input_ids: expected shape (B, choices, T) with all of them >= 1, got {input_ids.shape}")
        B, choices, T = input_ids.shape
        flat = {"input_ids": input_ids}
        for name, values in others.items():
            if values is None or name in checks.STACKING:
                continue
            flat[name] = checks.as_array(name, values, "an array of integers", "biuf")
            if flat[name].shape != input_ids.shape:
                raise ValueError(f"{name}: expected shape {input_ids.shape}, got {flat[name].shape}")
        one = EncoderModel(self.family, self.config, self.params, task="body", device=self.device)
        checked = one.inputs(**{name: a.reshape(B * choices, T) for name, a in flat.items()})
        stacking = {name: values for name, values in others.items() if name in checks.STACKING}
        checks.check_options("model", stacking, *checks.STACKING)
        return {name: None if a is None else a.reshape(B, choices, T) for name, a in checked.items()} | stacking
