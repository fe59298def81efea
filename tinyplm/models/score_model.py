"""Decoders with a score head: a classifier of texts, or, with one label, a reward model.

    logits = h W,   h the hidden state of the last real token, W (D, labels)         Radford et al. 2018, sec. 3.2

The last token is the first one that has seen the whole text.  As transformers' ...ForSequenceClassification, which finds it by
config.pad_token_id, while we take the last 1 of attention_mask: files of this model should have a pad_token_id.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from ..arguments import known_arguments, wrong
from ..backend import array_module
from ..core import IGNORED, Rows, Tree, add, complete
from ..kernels.cross_entropy import vocabulary_cross_entropy
from ..layers.embedding import embedding
from ..layers.linear import linear
from ..layers.pooling import last_pooling
from . import checks
from .causal_model import CausalModel
from .tasks import loss_of


def score_head(W, hidden, *, mask):
    """last_pooling(hidden) W;  hidden (B, T, D), mask (B, T) boolean -> (B, labels).  backward gives (dW, dhidden)."""
    pooled, pool_back = last_pooling(hidden, mask=mask)
    logits, back = linear(pooled, W)

    def backward(dlogits):
        dpooled, dW, _ = back(dlogits)
        return dW, pool_back(dpooled)

    return logits, backward


def forward(family: ModuleType, params: Tree, inputs_embeds=None, *, config, attention_mask=None, grad=True, **inputs):
    """{"logits" (B, labels), "hidden" (B, T, D)}; backward(doutputs) gives (dparams, dinputs_embeds); None without grad."""
    hidden, body_back = checks.run_body(family, params["body"], inputs_embeds, config=config, grad=grad,
                                       attention_mask=attention_mask, **inputs)  # fmt: skip
    logits, head_back = score_head(params["head"]["score"], hidden, mask=real_tokens(hidden, attention_mask))
    outputs = {"logits": logits, "hidden": hidden}
    if not grad:
        return outputs, None
    check = checks.gradient_check(outputs)

    def backward(doutputs):
        check(doutputs)
        dhidden, dhead = doutputs.get("hidden"), None
        if doutputs.get("logits") is not None:
            dW, dh = head_back(doutputs["logits"])
            dhidden, dhead = add(dh, dhidden), {"head": {"score": dW}}
        if dhidden is None:
            dhidden = hidden * 0
        dbody, dinputs_embeds = body_back(dhidden)
        dparams = add(dhead, {"body": dbody})
        return (dparams if inputs.get("on_gradient") else complete(dparams, params)), dinputs_embeds

    return outputs, backward


def outputs_in_parts(family: ModuleType, params: Tree, give: Callable[[str, Tree], None], *, config, input_ids,
                     attention_mask=None, **inputs):  # fmt: skip
    """`forward` for training: backward hands in parts of the gradient and returns what is left, as causal_lm.loss_in_parts."""
    x, _ = embedding(params["body"]["tokens"], ids=input_ids)
    outputs, back = forward(family, params, x, config=config, attention_mask=attention_mask, once=True, **inputs,
                            on_gradient=lambda i, dp: give(f"body.layers.{i}", dp))  # fmt: skip

    def backward(doutputs):
        dparams, dx = back(doutputs)
        dparams["body"] = {**dparams["body"], "layers": None}
        give("", dparams)
        return [{"body": {"tokens": Rows(input_ids.reshape(-1), dx.reshape(-1, dx.shape[-1]))}}]

    return outputs, backward


def real_tokens(hidden, attention_mask):
    """(B, T) booleans; without a mask, all are real."""
    if attention_mask is None:
        return array_module(hidden).ones(hidden.shape[:2], dtype=bool)
    return attention_mask != 0


class ScoreModel(CausalModel):
    """A decoder with a score head; its task is "sequence_classification"."""

    def for_decoding(self):
        self.check_causal()

    def empty_cache(self, batch: int, capacity: int | None = None):
        self.check_causal()

    @known_arguments
    def __call__(self, input_ids=None, *, inputs_embeds=None, attention_mask=None, position_ids=None, grad=True,
                 key: int | None = None, **stacking):  # fmt: skip
        """outputs {"logits" (B, labels), "hidden" (B, T, D)} and backward, as for CausalModel.

        attention_mask (B, T) of 0/1, 1 = a real token; the score is that of the last one of each row.
        """
        checks.check_options("model", {"grad": grad, **stacking}, *self.INPUTS, "key", "grad", *checks.STACKING)
        inputs = self.inputs(input_ids, inputs_embeds, attention_mask, position_ids)
        embeds = inputs.pop("inputs_embeds")
        key = checks.sample_keys(key, inputs["input_ids"] if embeds is None else embeds)
        outputs, back = forward(self.family, self.params, embeds, config=self.config, grad=grad, key=key, **inputs, **stacking)
        if embeds is None and grad:
            return outputs, lambda doutputs: back(doutputs)[0]
        return outputs, back

    def _check_mask(self, mask, B: int, T: int, S: int) -> None:
        if mask.shape != (B, S):
            raise ValueError(f"attention_mask: expected shape {(B, S)}, got {mask.shape}")

    def outputs(self, **inputs):
        """The outputs without gradients, of inputs that were checked before."""
        return forward(self.family, self.params, config=self.config, grad=False, **inputs)[0]

    def outputs_in_parts(self, give, **options):
        """outputs_in_parts of this model."""
        return outputs_in_parts(self.family, self.params, give, config=self.config, **self.checked(options))

    @known_arguments
    def loss(self, *, targets, total=None, smoothing=0.0, auxiliary=0.0, grad=True, **inputs):
        """The loss of {"logits": labels (B,), rows (B, labels), or numbers (B, 1)}, divided by total["logits"]; see tasks.

        auxiliary: the weight of a language model's loss beside it, of targets["language_model"] (B, T) (Radford et al. 2018,
        eq. 5; see losses.auxiliary).  Its head is the embedding table, so that the family must be a tied one.
        """
        options = {"smoothing": smoothing, "auxiliary": auxiliary, "grad": grad, **inputs}
        checked = self._checked_loss("loss", targets, total, options, "smoothing", "auxiliary")
        targets = checked.pop("targets")
        if targets.keys() != (expected := {"logits", "language_model"} if auxiliary else {"logits"}):
            raise wrong("targets", f"a dict with {' and '.join(sorted(expected))}", list(targets))
        inputs = {name: value for name, value in checked.items() if name in inputs}
        outputs, back = forward(self.family, self.params, config=self.config, grad=grad, **inputs)
        value, loss_back = self._losses(outputs, targets, total, smoothing, auxiliary, grad=grad)

        def backward(dloss):
            checks.check_scale(dloss)
            doutputs, dtable = loss_back(dloss)
            return add(back(doutputs)[0], dtable)

        return value, backward if grad else None

    def loss_in_parts(self, give, *, targets, total=None, smoothing=0.0, factors=False, auxiliary=0.0, **inputs):
        """The same for training, in the way of causal_lm.loss_in_parts."""
        outputs, back = self.outputs_in_parts(give, **inputs)
        value, loss_back = self._losses(outputs, targets, total, smoothing, auxiliary)

        def backward(dloss):
            doutputs, dtable = loss_back(dloss)
            give("", dtable)
            return back(doutputs)

        return value, backward

    def _losses(self, outputs, targets, total, smoothing, auxiliary, grad=True):
        """The task's loss, with weight `auxiliary` the language model's; backward gives (doutputs, the gradient of its table)."""
        totals = total or {}
        options = {"smoothing": smoothing} if smoothing else {}
        task, task_back = loss_of(targets["logits"], self.config)(outputs["logits"], targets=targets["logits"],
                                                                  total=totals.get("logits"), **options)  # fmt: skip
        if not auxiliary:
            return task, lambda dloss: ({"logits": task_back(dloss)}, None)
        if not self.config.tie_word_embeddings:
            raise ValueError("an auxiliary language model's head is the embedding table: expected tie_word_embeddings = true")
        W, W_back = self.family.output_matrix(self.params, config=self.config)
        lm, lm_back = vocabulary_cross_entropy(outputs["hidden"], W, targets=targets["language_model"],
                                               total=totals.get("language_model"), grad=grad)  # fmt: skip

        def backward(dloss):
            dhidden, dW, _ = lm_back(auxiliary * dloss)
            return {"logits": task_back(dloss), "hidden": dhidden}, W_back(dW)

        return task + auxiliary * lm, backward

    def head_rows(self, targets) -> int:
        """How many rows of a vocabulary are computed: none, or those of the auxiliary loss."""
        return int((targets["language_model"] != IGNORED).sum()) if "language_model" in targets else 0
