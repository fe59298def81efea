"""What decoders and encoder-decoders share as language models: losses over a vocabulary, ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from ..arguments import known_arguments, wrong
from ..backend import array_module
from ..core import StackOptions, Tree
from ..core.named import More
from ..kernels.cross_entropy import vocabulary_cross_entropy
from ..kernels.log_probs import vocabulary_log_probs
from ..layers.attention_parts import join_projections
from . import checks
from .heads import logits, logits_of
from .model import Model
from .parts import Head
from .protocol import Arrays, LossInputs, LossOptions, OutputOptions

M = TypeVar("M", bound="LanguageModel")


class LanguageModel(Model):
    """A model whose head is the output matrix, over the places of `targets`."""

    def end_ids(self) -> set[int]:
        """The tokens that end a text: those of generation_config.json, otherwise of config.json,
        and the tokenizer's <|endoftext|>."""
        found = [self.generation.get("eos_token_id")]
        stated = not self.config.source or "eos_token_id" in self.config.source  # not a default
        if found[0] is None and stated:
            found = [self.config.eos_token_id]
        found.append(self.tokenizer and self.tokenizer.eos_id)
        ids = {i for ids in found for i in (ids if isinstance(ids, list) else [ids])}
        return {i for i in ids if i is not None and 0 <= i < self.config.vocab_size}

    def for_decoding(self: M) -> M:
        """The same model with its weights laid out for decoding, which is bound by reading them.

        One matrix for the decoder's queries, keys and values (see
        layers.attention_parts.join_projections), and a tied head as its own (D, V).  These are
        copies; everything else is shared with this model.
        Latent attention is left as it is: with its three products of x joined, or its absorbed
        matrices contiguous by head, a token takes less than 3% less time (DeepSeek-V2-Lite's layer,
        context 2048), without its experts.
        The result computes the same but has no names in a file, so save this one.  A model that is
        already in this layout is returned unchanged.
        """
        body = self.params["body"]
        xp, decoder = array_module(body["tokens"]), body.get("decoder", body)
        latent = "Wdkv" in decoder["layers"][0]["attention"]
        own_head = "head" in self.params and not self.config.tie_word_embeddings
        if "Wqkv" in decoder["layers"][0]["attention"] or (latent and own_head):
            return self
        layers = decoder["layers"]
        if not latent:
            layers = [
                {**layer, "attention": join_projections(layer["attention"])} for layer in layers
            ]
        decoder = {**decoder, "layers": layers}
        body = {**body, "decoder": decoder} if "decoder" in body else decoder
        W, _ = self.family.output_matrix(self.params, config=self.config)
        params = {"body": body, "head": {"W": xp.ascontiguousarray(W)}}
        copied = ("head.W",) if self.config.tie_word_embeddings else self.copied
        config = self.config.for_decoding()
        return self._with(params=params, config=config, copied=copied, origin=self.origin)

    @known_arguments
    def loss(
        self,
        *,
        targets: Arrays,
        total: Arrays | None = None,
        weights: Any = None,
        smoothing: float = 0.0,
        chunk: int = 1024,
        grad: bool = True,
        checkpointing: int = 0,
        frozen: int = 0,
        once: bool = False,
        on_gradient: Callable | None = None,
        **inputs: Any,
    ) -> tuple[Any, Callable[[Any], Tree] | None]:
        """Cross-entropy of {"logits": targets (B, T)}, which line up with the logits.

        loss = sum of w nll / total["logits"], by default the sum of the weights of the targets that
        count; weights (B, T) or None = 1, -100 is ignored.  Logits are formed for `chunk` tokens at
        a time.  inputs and other options as in a call.  backward(dloss) gives the gradient tree.
        """
        options = LossOptions(smoothing=smoothing, chunk=chunk)
        stacking = StackOptions(grad, once, checkpointing, frozen, on_gradient)
        weights = self._checked_weights(weights)
        return self._loss(inputs, LossInputs(targets, total, options, weights), stacking)

    def _checked_weights(self, weights: Any) -> Any:
        """Those of the targets of a loss, on the model's device."""
        if weights is None:
            return None
        weights = checks.as_array("weights", weights, "an array of numbers", "fiu")
        return self._moved({"weights": weights})["weights"]

    def head_rows(self, targets: Arrays) -> int:
        """All rows."""
        return targets["logits"].size

    def _outputs_head(self, inputs: Arrays) -> Head:
        f = partial(logits, cap=self.config.logit_cap)
        return self._with_hidden(self._over_vocabulary(f))

    def _loss_head(self, inputs: Arrays, loss: LossInputs, *, grad: bool = True) -> Head:
        options = loss.options
        f = partial(
            vocabulary_cross_entropy,
            **logits_alone(loss.targets, loss.total),
            weights=loss.weights,
            cap=self.config.logit_cap,
            smoothing=options.smoothing,
            chunk=options.chunk,
            factors=options.factors,
            grad=grad,
        )
        more = (("logits",), partial(logits_of, **f.keywords))
        return self._over_vocabulary(f, more=more)

    def _training_head(self, inputs: Arrays, targets: Any, options: OutputOptions) -> Head:
        return self._log_probs_head(logits_alone(targets, None)["targets"], options)

    def _log_probs_head(self, targets: Any, options: OutputOptions, *, grad: bool = True) -> Head:
        f = partial(
            vocabulary_log_probs,
            targets=targets,
            temperature=options.temperature,
            cap=self.config.logit_cap,
            entropy=options.entropy,
            chunk=options.chunk,
            grad=grad,
        )
        return self._with_hidden(self._over_vocabulary(f))

    # what a kind of language model defines

    def _over_vocabulary(self, f: Callable, *, more: More | None = None) -> Head:
        """f(hidden, W) as a head, W (D, V) being the output matrix: see causal_lm."""
        raise NotImplementedError

    def _with_hidden(self, head: Head) -> Head:
        """The outputs of the head, and the hidden states."""
        raise NotImplementedError


def logits_alone(targets: Any, total: Any) -> dict[str, Any]:
    """The targets and the total of the one output that a decoder's loss has."""
    for name, given in (("targets", targets), ("total", {} if total is None else total)):
        if not isinstance(given, Mapping):
            raise wrong(name, "a dict with logits alone", given)
    if targets.keys() != {"logits"}:
        raise wrong("targets", "a dict with logits alone", list(targets))
    if total is not None and "logits" not in total:
        raise wrong("total", "a dict with logits", list(total))
    return {"targets": targets["logits"], "total": None if total is None else total["logits"]}
