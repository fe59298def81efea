"""Encoder-decoders as a user holds them: inputs checked once, labels shifted; for decoding, the
encoder run once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from ..arguments import MOST, check_whole, known_arguments, mismatch, wrong
from ..backend import array_module, is_host
from ..core import IGNORED, StackOptions
from ..core.named import More
from ..layers.cache import Cache
from ..layers.cache_size import numbers_per_token
from ..layers.cross_attention import keys_and_values
from ..layers.source_cache import SourceCache
from ..memory import check_memory
from . import checks, seq2seq
from .causal_lm import vocabulary_head
from .heads import logits, on_decoder, with_states
from .language_model import LanguageModel, logits_alone
from .model import INFERENCE, first_gradient
from .parts import Emit, Head, in_parts
from .protocol import Arrays, InParts, LossInputs, Passed
from .walks import look_up

SOURCE = ("input_ids", "inputs_embeds", "attention_mask")
TARGET = ("decoder_input_ids", "decoder_inputs_embeds", "decoder_attention_mask")


class Seq2SeqModel(LanguageModel):
    """An encoder-decoder with a language-modelling head; its task is "seq2seq_lm"."""

    INPUTS = (*SOURCE, *TARGET, "labels")

    @known_arguments
    def __call__(
        self,
        input_ids: Any = None,
        *,
        inputs_embeds: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_inputs_embeds: Any = None,
        decoder_attention_mask: Any = None,
        labels: Any = None,
        grad: bool = True,
        key: int | None = None,
        checkpointing: int = 0,
        frozen: int = 0,
        once: bool = False,
        on_gradient: Callable | None = None,
    ) -> tuple[dict[str, Any], Callable | None]:
        """outputs {"logits" (B, T, V), "encoder_hidden" (B, S, D), "hidden" (B, T, D)}, backward.

        input_ids      (B, S) integers of the source
        inputs_embeds  (B, S, D) in place of input_ids, cast to the model's dtype
        attention_mask (B, S) of 0/1, 1 = a real token of the source
        decoder_input_ids       (B, T) integers of the target, from the start token on
        decoder_inputs_embeds   (B, T, D) in their place
        decoder_attention_mask  (B, T) of 0/1, 1 = a real token of the target
        labels         (B, T), from which decoder_input_ids are made: shifted right, after the
                       start token, with padding for -100
        grad           False: backward is None, and memory stays small
        key            an integer for dropout, None for no dropout
        checkpointing, frozen, once, on_gradient: see core.StackOptions; layers are numbered
        through, the encoder's first.
        backward(doutputs) gives the gradient tree of params, or with embeddings given (dparams,
        dinputs_embeds, ddecoder_inputs_embeds).
        ValueError for wrong shapes, ids out of range, a sequence longer than the positions, labels
        and decoder_input_ids together.
        """
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        decoder = (decoder_input_ids, decoder_inputs_embeds, decoder_attention_mask, labels)
        inputs = self.inputs(input_ids, inputs_embeds, attention_mask, *decoder)
        inputs = self._keyed(inputs, key)
        outputs, back = self._whole(self._outputs_head(inputs), inputs, stacking)
        ids_alone = inputs["inputs_embeds"] is None and inputs["decoder_inputs_embeds"] is None
        return outputs, first_gradient(back) if ids_alone else back

    @known_arguments
    def inputs(
        self,
        input_ids: Any = None,
        inputs_embeds: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_inputs_embeds: Any = None,
        decoder_attention_mask: Any = None,
        labels: Any = None,
    ) -> dict[str, Any]:
        """The inputs checked, and moved to the model's device; labels become decoder_input_ids."""
        names = ("decoder_input_ids", "decoder_inputs_embeds", "labels")
        values = (decoder_input_ids, decoder_inputs_embeds, labels)
        given = [name for name, value in zip(names, values) if value is not None]
        if len(given) != 1:
            expected = f"expected one of {', '.join(names[:2])} and {names[2]}"
            raise ValueError(f"{expected}, got {' and '.join(given) or 'none of them'}")
        if labels is not None:
            decoder_input_ids = self._shifted("labels", labels)
        source = self._side("", input_ids, inputs_embeds, attention_mask)
        target = self._side(
            "decoder_", decoder_input_ids, decoder_inputs_embeds, decoder_attention_mask
        )
        if source[-1] != target[-1]:
            expected = f"as many samples as in the source, {source[-1]}"
            raise mismatch(given[0], expected, target[-1])
        return self._moved(dict(zip((*SOURCE, *TARGET), (*source[:3], *target[:3]))))

    def _side(self, prefix: str, ids: Any, embeds: Any, mask: Any) -> tuple[Any, Any, Any, int]:
        """(ids, embeddings, mask, B) of one side, checked."""
        ids, embeds, B, T = self._ids_or_embeds(ids, embeds, prefix=prefix)
        if mask is not None:
            mask = checks.zeros_and_ones(f"{prefix}attention_mask", mask)
            if mask.shape != (B, T):
                raise mismatch(f"{prefix}attention_mask", f"shape {(B, T)}", mask.shape)
        return ids, embeds, mask, B

    def _shifted(self, name: str, values: Any) -> Any:
        """config.decoder_ids of labels (B, T), checked: tokens, or -100."""
        labels = checks.ids(name, values)
        if labels.ndim != 2 or 0 in labels.shape:
            raise mismatch(name, "shape (B, T) with B, T >= 1", labels.shape)
        if is_host(labels):
            checks.check_range(name, labels[labels != IGNORED], self.config.vocab_size)
        return self.config.decoder_ids(labels)

    def _loss(self, inputs: Arrays, loss: LossInputs, stacking: StackOptions) -> Passed:
        """Without the target among the inputs, the labels tell what the decoder reads."""
        if not any(inputs.get(name) is not None for name in (*TARGET[:2], "labels")):
            inputs = {**inputs, **self._target_of(loss.targets)}
        return super()._loss(inputs, loss, stacking)

    def _target_of(self, targets: Arrays) -> dict[str, Any]:
        """The inputs of the decoder that the targets of a loss tell."""
        labels = logits_alone(targets, None)["targets"]
        return {"labels": checks.ids("targets: logits", labels)}

    def _in_parts(self, emit: Emit, head: Head, inputs: Arrays, stacking: StackOptions) -> InParts:
        ids = (inputs["input_ids"], inputs["decoder_input_ids"])
        if ids[1] is None:
            raise wrong("inputs", "a dict of arrays with decoder_input_ids", list(inputs))
        left = (*SOURCE[:2], *TARGET[:2])
        others = {name: a for name, a in inputs.items() if name not in left}
        return in_parts(self._body(), head, self.params, emit, ids, others, stacking)

    def _over_vocabulary(self, f: Callable, *, more: More | None = None) -> Head:
        bias = self.buffers.get("logits_bias")
        biased = f if bias is None else _biased(f, bias[0])
        head = vocabulary_head(biased, self.family, self.config, more=more)
        return on_decoder(head, scale=self.config.logit_scale)

    def _with_hidden(self, head: Head) -> Head:
        return with_states(head)

    # for decoding, without gradients

    def start_id(self) -> int:
        """The token that the decoder begins with: that of generation_config.json, otherwise of
        config.json.  ValueError without one."""
        start = self.generation.get("decoder_start_token_id", self.config.decoder_start_token_id)
        if type(start) is not int or not 0 <= start < self.config.vocab_size:
            expected = f"a token from 0 to {self.config.vocab_size - 1}, to begin with"
            raise wrong("decoder_start_token_id", expected, start)
        return start

    @known_arguments
    def encode(
        self, input_ids: Any = None, *, inputs_embeds: Any = None, attention_mask: Any = None
    ) -> Any:
        """The encoder's hidden states (B, S, D) alone, without gradients."""
        ids, embeds, mask, _ = self._side("", input_ids, inputs_embeds, attention_mask)
        inputs = self._moved(dict(zip(SOURCE, (ids, embeds, mask))))
        p, pieces = self.params["body"], self.family.pieces(self.config)
        e, _ = look_up(p, inputs["input_ids"], inputs["inputs_embeds"])
        mask = inputs["attention_mask"]
        options = {"pieces": pieces, "attention_mask": mask, "stacking": INFERENCE}
        return seq2seq.encode(p["encoder"], e, **options)[0]

    @known_arguments
    def source_cache(
        self, encoder_hidden: Any, *, capacity: int, attention_mask: Any = None, samples: int = 1
    ) -> SourceCache:
        """What `decode` needs of encoder_hidden (B, S, D), with room for `capacity` tokens.

        attention_mask (B, S) of 0/1: of the sources; samples: how many targets each source has.
        """
        longest = self.config.cache_context
        check_whole("samples", samples, 1, MOST)
        check_whole("capacity", capacity, 1, MOST if longest is None else longest)
        given, D = getattr(encoder_hidden, "shape", None), self.width
        if given is None or len(given) != 3 or given[2] != D:
            raise wrong("encoder_hidden", f"an array (B, S, {D}), as encode gives", encoder_hidden)
        if attention_mask is not None:
            attention_mask = checks.zeros_and_ones("attention_mask", attention_mask)
            if attention_mask.shape != given[:2]:
                raise mismatch("attention_mask", f"shape {given[:2]}", attention_mask.shape)
            attention_mask = self._moved({"mask": attention_mask})["mask"]
        sizes = {"batch": given[0] * samples, "capacity": capacity, **self.config.cache_sizes}
        if self.device == "cpu":
            places = given[0] * samples * capacity + given[0] * given[1]
            numbers = places * numbers_per_token(**self.config.cache_sizes)
            check_memory(numbers * self.dtype.itemsize, "the keys and values of the cache")
        layers, xp = self.params["body"]["decoder"]["layers"], array_module(encoder_hidden)
        heads = self.config.cache_sizes["kv_heads"]
        projected = (keys_and_values(p["cross"], encoder_hidden, heads=heads)[0] for p in layers)
        memories = tuple((xp.ascontiguousarray(k), xp.ascontiguousarray(v)) for k, v in projected)
        earlier = Cache.empty(**sizes, dtype=self.dtype, xp=xp)
        earlier = dataclasses.replace(earlier, origin=self.origin)
        return SourceCache(earlier, memories, attention_mask)

    @known_arguments
    def decode(self, decoder_input_ids: Any, *, cache: SourceCache) -> dict[str, Any]:
        """outputs {"logits" (N, T, V), "hidden" (N, T, D), "cache"}: T more tokens of N targets.

        cache: from `source_cache` or an earlier call, consumed by this one.  No gradients.
        """
        if not isinstance(cache, SourceCache):
            raise wrong("cache", "one of source_cache or of an earlier call's outputs", cache)
        found, own = (cache.earlier.sizes, cache.dtype), (self.config.cache_sizes, self.dtype)
        if found != own:
            raise mismatch("cache", "{} in {}".format(*own), "{} in {}".format(*found))
        if cache.earlier.origin not in (None, self.origin):
            raise mismatch("cache", "one that this model made", "another model's")
        ids = checks.ids("decoder_input_ids", decoder_input_ids)
        N, room = cache.batch, cache.capacity - cache.length
        if ids.ndim != 2 or ids.shape[0] != N or not 1 <= ids.shape[1] <= room:
            raise mismatch("decoder_input_ids", f"shape ({N}, 1 to {room})", ids.shape)
        checks.check_range("decoder_input_ids", ids, self.config.vocab_size)
        ids = self._moved({"ids": ids})["ids"]
        cache.begin()
        p, pieces = self.params["body"], self.family.pieces(self.config)
        d, _ = look_up(p, ids, None)
        hidden, _ = seq2seq.decode(p["decoder"], d, pieces=pieces, cache=cache, stacking=INFERENCE)
        head = self._over_vocabulary(partial(logits, cap=self.config.logit_cap))
        outputs, _ = head(self.params, {"hidden": hidden})
        return {**outputs, "hidden": hidden, "cache": cache.advanced(ids.shape[1])}


def _biased(f: Callable, bias: Any) -> Callable:
    """f(hidden, W, bias), as a function of hidden and W; the bias is not trained."""
    return lambda hidden, W: f(hidden, W, bias)
