"""Causal language models as a user holds them: inputs checked at this one border, caches, decoding."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..arguments import MOST, check_function, check_whole, known_arguments, wrong
from ..backend import array_module
from ..layers.attention_parts import join_projections
from ..layers.cache import Cache
from ..memory import check_memory
from . import causal_lm, checks
from .model import Model


class CausalModel(Model):
    """A decoder with a language-modelling head; its task is "causal_lm"."""

    def for_decoding(self) -> CausalModel:
        """The same model with its weights in the layout that is read fastest token by token, which is what decoding waits for:
        one matrix for queries, keys and values (see attention.join_projections), and a tied head as a (D, V) of its own.

        These are copies; everything else is shared with this model.  It computes the same, but has no names for a file: to be
        saved is this one.  A model in this layout is returned as it is.
        """
        params, xp = self.params, array_module(self.params["body"]["tokens"])
        if "Wqkv" in params["body"]["layers"][0]["attention"]:
            return self
        layers = [{**layer, "attention": join_projections(layer["attention"])} for layer in params["body"]["layers"]]
        W, _ = self.family.output_matrix(params, config=self.config)
        params = {"body": {**params["body"], "layers": layers}, "head": {"W": xp.ascontiguousarray(W)}}
        copied = ("head.W",) if self.config.tie_word_embeddings else self.copied
        return self._with(params=params, config=dataclasses.replace(self.config, tie_word_embeddings=False), copied=copied,
                          origin=self.origin)  # fmt: skip

    def end_ids(self) -> set[int]:
        """The tokens that end a text: those of generation_config.json, else of config.json, and the tokenizer's <|endoftext|>."""
        found = [self.generation.get("eos_token_id")]
        if found[0] is None and (not self.config.source or "eos_token_id" in self.config.source):  # a default is no statement
            found = [self.config.eos_token_id]
        found.append(self.tokenizer and self.tokenizer.eos_id)
        ids = {i for ids in found for i in (ids if isinstance(ids, list) else [ids]) if i is not None}
        return {i for i in ids if 0 <= i < self.config.vocab_size}

    @known_arguments
    def __call__(self, input_ids=None, *, inputs_embeds=None, attention_mask=None, position_ids=None, grad=True,
                 key: int | None = None, cache: Cache | None = None, **stacking):  # fmt: skip
        """outputs {"logits" (B, T, V), "hidden" (B, T, D)} and backward.

        input_ids (B, T) integers, lists or arrays, on the host or on the model's device; or inputs_embeds (B, T, D), cast to
        the model's dtype.  attention_mask (B, S) of 0/1, 1 = a real token; or, as for packed samples (layers.mask.packed_mask),
        booleans (B or 1, H or 1, T, S), True = may attend, on top of the causal mask.  position_ids (B, T) or (T,).
        cache: from `empty_cache` or an earlier call, and consumed by this one; the input goes on behind it, so that
        S = cache.length + T (else S = T), and outputs["cache"] is the next one.  No gradient flows into what was cached.
        grad=False: backward is None, and memory stays small.  key: an int for dropout, None for none.
        stacking: see core.stack (checkpointing, once, on_gradient).
        backward(doutputs) gives the gradient tree of params, or (dparams, dinputs_embeds) when those were given.
        ValueError for wrong shapes, ids out of range, a sequence longer than the context or the cache.
        """
        checks.check_options("model", {"grad": grad, **stacking}, *self.INPUTS, "cache", "key", "grad", *checks.STACKING)
        inputs = self.inputs(input_ids, inputs_embeds, attention_mask, position_ids, cache)
        embeds = inputs.pop("inputs_embeds")
        key = checks.sample_keys(key, inputs["input_ids"] if embeds is None else embeds)
        outputs, back = causal_lm.forward(self.family, self.params, embeds, config=self.config, grad=grad, key=key,
                                          **inputs, **stacking)  # fmt: skip
        if embeds is None and grad:
            return outputs, lambda doutputs: back(doutputs)[0]
        return outputs, back

    @known_arguments
    def loss(self, *, targets, total=None, **options):
        """causal_lm.loss of {"logits": targets (B, T)}, divided by total["logits"]; inputs as in a call."""
        options = self._checked_loss("loss", targets, total, options, "weights", "smoothing", "chunk")
        if options.get("weights") is not None:
            options |= self._moved({"weights": checks.as_array("weights", options["weights"], "an array of numbers", "fiu")})
        return causal_lm.loss(self.family, self.params, config=self.config, **options | _logits(options))

    def loss_in_parts(self, give, *, targets, total=None, **options):
        """causal_lm.loss_in_parts, in the same way."""
        check_function("give", give)
        options = {"targets": targets, "total": total, **self.checked(options)}
        return causal_lm.loss_in_parts(self.family, self.params, give, config=self.config, **options | _logits(options))

    @known_arguments
    def token_outputs(self, input_ids, *, targets, key: int | None = None, **options):
        """{"log_probs", "hidden", "entropy"} and backward(doutputs) -> dparams, of causal_lm.token_outputs.

        input_ids (B, T), targets (B, T) in line with the logits, -100 = ignored, attention_mask and so on as in a call; options:
        temperature, entropy, chunk, grad.
        """
        names = ("attention_mask", "position_ids")
        checks.check_options("token_outputs", options, *names, "temperature", "entropy", "chunk", "grad", *checks.STACKING)
        inputs = self.inputs(input_ids, **{name: options.pop(name) for name in names if name in options})
        del inputs["inputs_embeds"]
        key = checks.sample_keys(key, inputs["input_ids"])
        targets = self._moved({"targets": checks.ids("targets", targets)})["targets"]
        outputs, back = causal_lm.token_outputs(self.family, self.params, config=self.config, targets=targets, key=key,
                                                **inputs, **options)  # fmt: skip
        return outputs, None if back is None else lambda doutputs: back(doutputs)[0]

    def outputs_in_parts(self, give, *, targets, **options):
        """causal_lm.token_outputs_in_parts of {"logits": targets (B, T)}."""
        return causal_lm.token_outputs_in_parts(self.family, self.params, give, config=self.config, targets=targets["logits"],
                                                **self.checked(options))  # fmt: skip

    def head_rows(self, targets) -> int:
        """For how many places the head is computed: all."""
        return targets["logits"].size

    @known_arguments
    def empty_cache(self, batch: int, capacity: int | None = None) -> Cache:
        """A cache on the model's device for `batch` sequences of up to `capacity` tokens.

        The default is the context, less where the family cannot cache all of it (dynamic RoPE scaling).
        """
        longest = self.config.cache_context
        capacity = longest if capacity is None else capacity
        check_whole("batch", batch, 1, MOST)
        check_whole("capacity", capacity, 1, longest)
        if self.device == "cpu":
            numbers = 2 * batch * capacity * math.prod(self.config.cache_sizes.values())
            check_memory(numbers * self.dtype.itemsize, "the keys and values of the cache")
        xp = array_module(self.params["body"]["tokens"])
        cache = Cache.empty(batch=batch, capacity=capacity, dtype=self.dtype, xp=xp, **self.config.cache_sizes)
        return dataclasses.replace(cache, origin=self.origin)

    @known_arguments
    def inputs(self, input_ids=None, inputs_embeds=None, attention_mask=None, position_ids=None,
               cache: Cache | None = None) -> dict[str, Any]:  # fmt: skip
        """The inputs checked, and moved to the model's device."""
        if not (cache is None or isinstance(cache, Cache)):
            raise wrong("cache", "None or a cache of empty_cache or of an earlier call's outputs", cache)
        input_ids, inputs_embeds = self._ids_or_embeds(input_ids, inputs_embeds)
        B, T = (input_ids if inputs_embeds is None else inputs_embeds).shape[:2]
        S = T if cache is None else cache.length + T
        if S > self.config.context:
            raise ValueError(f"a sequence of {S} tokens is longer than the context of {self.config.context}")
        if cache is not None:
            self._check_cache(cache, B, S)
        if attention_mask is not None:
            attention_mask = checks.zeros_and_ones("attention_mask", attention_mask)
            self._check_mask(attention_mask, B, T, S)
        if position_ids is not None:
            position_ids = checks.ids("position_ids", position_ids)
            if position_ids.shape not in ((T,), (B, T)):
                raise ValueError(f"position_ids: expected shape {(T,)} or {(B, T)}, got {position_ids.shape}")
            checks.check_range("position_ids", position_ids, self.config.context if cache is None else self.config.cache_context)
        moved = self._moved({"input_ids": input_ids, "inputs_embeds": inputs_embeds, "attention_mask": attention_mask,
                             "position_ids": position_ids})  # fmt: skip
        if cache is None:
            return moved
        return {**moved, "cache": cache if cache.origin == self.origin else dataclasses.replace(cache, origin=self.origin)}

    def _check_cache(self, cache: Cache, B: int, S: int) -> None:
        cache.check_current()
        if cache.batch != B or S > cache.capacity:
            raise ValueError(f"the cache is for {cache.batch} samples of up to {cache.capacity} tokens, got {B} of {S}")
        if S > (longest := self.config.cache_context):
            raise ValueError(f"{S} tokens cannot be cached: the longest sequence that can be is {longest}")
        if cache.sizes != self.config.cache_sizes or cache.dtype != self.dtype:
            raise ValueError(f"the cache is of another model: {cache.sizes} in {cache.dtype}, "
                             f"expected {self.config.cache_sizes} in {self.dtype}")  # fmt: skip
        self.check_origin("cache", cache)

    def check_origin(self, name: str, cache: Cache) -> None:
        """ValueError for what another model has filled."""
        if cache.length and cache.origin not in (None, self.origin):
            raise ValueError(f"{name}: expected one that this model has filled, got one of another model")

    def _check_mask(self, mask: Any, B: int, T: int, S: int) -> None:
        if mask.ndim != 4:
            if mask.shape != (B, S):
                raise ValueError(f"attention_mask: expected shape {(B, S)}, got {mask.shape}")
            return
        H = self.config.heads
        if mask.dtype != bool:
            raise ValueError(f"attention_mask: of 4 dimensions it must be boolean, True = may attend, got dtype {mask.dtype}")
        if mask.shape[0] not in (1, B) or mask.shape[1] not in (1, H) or mask.shape[2:] != (T, S):
            raise ValueError(f"attention_mask: expected shape ({B} or 1, {H} or 1, {T}, {S}), got {mask.shape}")


def _logits(options: dict[str, Any]) -> dict[str, Any]:
    """The targets and the total of the one output that a decoder's loss has."""
    targets, total = options["targets"], options["total"]
    for name, given in (("targets", targets), ("total", {} if total is None else total)):
        if not isinstance(given, dict):
            raise wrong(name, "a dict with logits alone", given)
    if targets.keys() != {"logits"}:
        raise wrong("targets", "a dict with logits alone", list(targets))
    if total is not None and "logits" not in total:
        raise wrong("total", "a dict with logits", list(total))
    return {"targets": targets["logits"], "total": None if total is None else total["logits"]}
