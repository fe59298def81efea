"""Causal language models as a user holds them: inputs checked once, caches, decoding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from ..arguments import MOST, check_whole, known_arguments, mismatch, wrong
from ..backend import array_module
from ..core import StackOptions, Tree
from ..core.named import More
from ..layers.cache import Cache
from ..layers.cache_size import cache_bytes
from ..memory import check_memory
from . import checks
from .causal_lm import cache_layout, last_logits, several_logits, vocabulary_head
from .heads import with_hidden
from .language_model import LanguageModel
from .model import first_gradient
from .parts import Body, Head
from .protocol import Arrays, OutputOptions, Passed
from .routed import causal_body


class CausalModel(LanguageModel):
    """A decoder with a language-modelling head; its task is "causal_lm"."""

    INPUTS = (*LanguageModel.INPUTS, "prefix_lengths")

    @known_arguments
    def __call__(
        self,
        input_ids: Any = None,
        *,
        inputs_embeds: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        prefix_lengths: Any = None,
        grad: bool = True,
        key: int | None = None,
        cache: Cache | None = None,
        checkpointing: int = 0,
        frozen: int = 0,
        once: bool = False,
        on_gradient: Callable | None = None,
    ) -> tuple[dict[str, Any], Callable | None]:
        """outputs {"logits" (B, T, V), "hidden" (B, T, D)} and backward.

        input_ids      (B, T) integers, lists or arrays, on the host or on the model's device
        inputs_embeds  (B, T, D) in place of input_ids, cast to the model's dtype
        attention_mask (B, S) of 0/1, 1 = a real token; or booleans (B or 1, H or 1, T, S), True =
                       may attend, combined with the causal mask, as for packed samples
                       (layers.mask.packed_mask)
        position_ids   (B, T) or (T,); (B, 2, T) where the family has two positions for each token;
                       ChatGLM-6B and GLM-130B read them, and prefix_lengths, off the ids
        prefix_lengths (B,): all queries see the first prefix_lengths[b] places, also those before
                       them, as in a prefix language model; not in models with windows, and with a
                       cache only in its first call
        cache          from `empty_cache` or an earlier call, consumed by this one: the input
                       continues it, S = cache.length + T (otherwise S = T), and outputs["cache"] is
                       the next one.  No gradient flows into cached keys and values
        grad           False: backward is None, and memory stays small
        key            an integer for dropout, None for no dropout
        checkpointing, frozen, once, on_gradient: see core.StackOptions.
        backward(doutputs) gives the gradient tree of params, or (dparams, dinputs_embeds) for
        inputs_embeds.
        ValueError for wrong shapes, ids out of range, a sequence longer than the context or the
        cache.
        """
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        given = (input_ids, inputs_embeds, attention_mask, position_ids, cache, prefix_lengths)
        return self._call(self.inputs(*given), key, stacking)

    def _body(self) -> Body:
        """The family's, with the hidden states alone where it is a routed one."""
        return causal_body(self.family, self.config, self.buffers)

    def last_logits(self, inputs: Arrays) -> tuple[Any, Cache | None]:
        """causal_lm.last_logits of inputs that are already checked, for decoding."""
        body = causal_body(self.family, self.config, self.buffers)
        W, cap = partial(self.family.output_matrix, config=self.config), self.config.logit_cap
        return last_logits(body, W, self.params, inputs, cap=cap)

    def several_logits(self, inputs: Arrays, *, count: int) -> tuple[Any, Any, Cache | None]:
        """causal_lm.several_logits of inputs that are already checked, for decoding."""
        body = causal_body(self.family, self.config, self.buffers)
        W, cap = partial(self.family.output_matrix, config=self.config), self.config.logit_cap
        return several_logits(body, W, self.params, inputs, count=count, cap=cap)

    def _whole(
        self, head: Head, inputs: Arrays, stacking: StackOptions, targets: Any = None
    ) -> Passed:
        """parts.whole, which consumes a cache among the inputs; outputs["cache"] is the next."""
        cache = inputs.get("cache")
        if cache is None:
            return super()._whole(head, inputs, stacking, targets)
        cache.begin()
        outputs, back = super()._whole(head, inputs, stacking, targets)
        after = cache.advanced(outputs["hidden"].shape[1])

        outputs = {**outputs, "cache": after}
        if back is None:
            return outputs, None

        def backward(doutputs: Any) -> tuple[Tree, Any]:
            after.check_kept()
            return back(doutputs)

        return outputs, backward

    @known_arguments
    def token_outputs(
        self,
        input_ids: Any,
        *,
        targets: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        prefix_lengths: Any = None,
        temperature: float = 1.0,
        entropy: bool = False,
        chunk: int = 1024,
        grad: bool = True,
        key: int | None = None,
        checkpointing: int = 0,
        frozen: int = 0,
        once: bool = False,
        on_gradient: Callable | None = None,
    ) -> tuple[dict[str, Any], Callable[[Arrays], Tree] | None]:
        """What losses on given tokens need, {"log_probs" (B, T), "hidden" (B, T, D)}, with
        entropy=True "entropy" (B, T) too, and backward(doutputs) -> the gradient tree of params.

        targets (B, T) line up with the logits, -100 is ignored: see losses.log_probs.  Logits are
        formed for `chunk` tokens at a time.  Other arguments as in a call.
        """
        options = OutputOptions(temperature=temperature, entropy=entropy, chunk=chunk)
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        given = (input_ids, None, attention_mask, position_ids)
        prefix = {} if prefix_lengths is None else {"prefix_lengths": prefix_lengths}
        inputs = self._keyed(self.inputs(*given, **prefix), key)
        targets = self._moved({"targets": checks.ids("targets", targets)})["targets"]
        head = self._log_probs_head(targets, options, grad=grad)
        outputs, back = self._whole(head, inputs, stacking)
        return outputs, first_gradient(back)

    def _with_hidden(self, head: Head) -> Head:
        return with_hidden(head)

    def _over_vocabulary(self, f: Callable, *, more: More | None = None) -> Head:
        return vocabulary_head(f, self.family, self.config, more=more)

    @known_arguments
    def empty_cache(self, batch: int, capacity: int | None = None, *, spare: int = 0) -> Cache:
        """A cache on the model's device for `batch` sequences of up to `capacity` tokens; default:
        the context, or less if the family cannot cache all of it (dynamic RoPE scaling).

        spare: room for so many more tokens, and a cut may go back by so many despite windows.
        """
        longest = self.config.cache_context
        capacity = longest if capacity is None else capacity
        check_whole("batch", batch, 1, MOST)
        check_whole("capacity", capacity, 1, longest)
        check_whole("spare", spare, 0, MOST)
        sizes = {"batch": batch, "capacity": capacity + spare, "dtype": self.dtype, "spare": spare}
        sizes |= cache_layout(self.family, self.config)
        if self.device == "cpu":
            check_memory(cache_bytes(**sizes), "the keys and values of the cache")
        cache = Cache.empty(**sizes, xp=array_module(self.params["body"]["tokens"]))
        return dataclasses.replace(cache, origin=self.origin)

    @known_arguments
    def inputs(
        self,
        input_ids: Any = None,
        inputs_embeds: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        cache: Cache | None = None,
        prefix_lengths: Any = None,
    ) -> dict[str, Any]:
        """The inputs checked, and moved to the model's device."""
        if not (cache is None or isinstance(cache, Cache)):
            expected = "None or a cache of empty_cache or of an earlier call's outputs"
            raise wrong("cache", expected, cache)
        before = 0 if cache is None else cache.length
        position_ids = None if position_ids is None else checks.ids("position_ids", position_ids)
        paired = self.config.position_rows is not None and getattr(position_ids, "ndim", 0) == 3
        longest = self.config.cache_context if paired else self.config.context
        input_ids, inputs_embeds, B, T = self._ids_or_embeds(
            input_ids, inputs_embeds, before, longest
        )
        S = before + T
        if cache is not None:
            cache.check_current()
            self.check_cache("cache", cache, B, S)
        if attention_mask is not None:
            attention_mask = checks.zeros_and_ones("attention_mask", attention_mask)
            self._check_mask(attention_mask, B, T, S)
        if self.config.reads_places and input_ids is not None:
            if position_ids is None and before:
                shape = (B, T) if self.config.position_rows is None else (B, 2, T)
                expected = f"the places of these tokens, {shape}, behind a cache"
                raise wrong("position_ids", expected, None)
            if position_ids is prefix_lengths is None:
                mask = attention_mask if getattr(attention_mask, "ndim", 0) == 2 else None
                position_ids, prefix_lengths = self.placed(input_ids, mask).values()
        if position_ids is not None:
            self._check_positions(position_ids, B, T, cached=cache is not None)
        if prefix_lengths is not None:
            prefix_lengths = checks.ids("prefix_lengths", prefix_lengths)
            self._check_prefix(prefix_lengths, B, S, before)
        inputs = (input_ids, inputs_embeds, attention_mask, position_ids, prefix_lengths)
        moved = self._moved(dict(zip(self.INPUTS, inputs)))
        if cache is None:
            return moved
        own = cache.origin == self.origin
        return {**moved, "cache": cache if own else dataclasses.replace(cache, origin=self.origin)}

    def placed(self, ids: Any, real: Any = None) -> dict[str, Any]:
        """position_ids and prefix_lengths of ids (B, T), in a family that reads them off the ids;
        real (B, T): 1 for tokens, 0 for padding."""
        return self.family.placed(ids, real, config=self.config)

    def check_cache(self, name: str, cache: Cache, B: int, S: int) -> None:
        """ValueError unless it is a cache of this model with room for B sequences of S tokens."""
        if cache.batch != B or S > cache.capacity:
            room = f"{cache.batch} samples of up to {cache.capacity} tokens"
            raise mismatch(name, room, f"{B} of {S}")
        if S > (longest := self.config.cache_context):
            raise mismatch(name, f"at most {longest} tokens in all", S)
        if cache.sizes != self.config.cache_sizes or cache.dtype != self.dtype:
            own = f"{self.config.cache_sizes} in {self.dtype}"
            raise mismatch(name, own, f"{cache.sizes} in {cache.dtype}")
        if cache.length and cache.origin not in (None, self.origin):
            raise mismatch(name, "one that this model filled", "another model's")

    def _check_positions(self, positions: Any, B: int, T: int, *, cached: bool) -> None:
        name, rows = "position_ids", self.config.position_rows
        one = [] if self.config.reads_places and rows is not None else [(T,), (B, T)]
        shapes = [*one, *([] if rows is None else [(B, 2, T)])]
        if positions.shape not in shapes:
            raise mismatch(name, f"shape {' or '.join(map(str, shapes))}", positions.shape)
        context, cache_context = self.config.context, self.config.cache_context
        longest = min(context, cache_context) if cached else context
        checks.check_range(name, positions, rows if positions.ndim == 3 else longest)

    def _check_prefix(self, lengths: Any, B: int, S: int, before: int) -> None:
        name, layers = "prefix_lengths", range(self.config.cache_sizes["layers"])
        if lengths.shape != (B,):
            raise mismatch(name, f"shape {(B,)}", lengths.shape)
        if before:
            expected = "None after the first call with a cache, which reads the prefix"
            raise wrong(name, expected, lengths)
        window = self.family.pieces(self.config).window
        if any(window(i) is not None for i in layers):
            raise wrong(name, "None for a model with sliding windows", lengths)
        checks.check_range(name, lengths, S + 1)

    def _check_mask(self, mask: Any, B: int, T: int, S: int) -> None:
        name, H = "attention_mask", self.config.heads
        if mask.ndim != 4:
            if mask.shape != (B, S):
                raise mismatch(name, f"shape {(B, S)}", mask.shape)
        elif mask.dtype != bool:
            expected = "booleans, True = may attend, in 4 dimensions"
            raise mismatch(name, expected, f"dtype {mask.dtype}")
        elif mask.shape[0] not in (1, B) or mask.shape[1] not in (1, H) or mask.shape[2:] != (T, S):
            raise mismatch(name, f"shape ({B} or 1, {H} or 1, {T}, {S})", mask.shape)
