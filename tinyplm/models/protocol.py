"""What training asks of a model: the members that training.step and tuning.align.learner use.

Anything that has them can be trained by `training.step.update` and by a `Learner`: CausalModel,
EncoderModel, ScoreModel, and the wrappers of the recipes (a soft prompt, a student beside its
teacher) do.  `training.loop.train` and the recipes ask for a models.model.Model besides, since
their checkpoints are folders of the hub.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from ..arguments import check_flag, check_number, check_whole
from ..core import StackOptions, Tree

Arrays = Mapping[str, Any]
Emit = Callable[[str, Tree], None]  # emit(path, gradient): one part of a gradient tree, complete
Passed = tuple[Any, Callable | None]  # a value and its backward; None without gradients
InParts = tuple[Any, Callable[[Any], list[Tree]]]  # see Trainable.loss_in_parts


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """Options of a loss.

    smoothing    e of label smoothing, for class numbers (Szegedy et al. 2016, sec. 7)
    auxiliary    the weight of a language model's loss added to a score head's (Radford et al. 2018,
                 eq. 5)
    chunk        tokens whose logits over the vocabulary are held at a time
    factors      the gradient of the output matrix is a core.Product, which pays if fewer tokens
                 have a target than the model is wide
    balance      the weight of the balance loss of a model with experts, added to its loss
    z_loss       the weight of its router z-loss, likewise
    multi_token  the weight of the loss of modules for later tokens (models/multi_token.py)
    load         what gathers its expert counts over the parts of a step (router_losses.StepLoad)
    """

    smoothing: float = 0.0
    auxiliary: float = 0.0
    chunk: int = 1024
    factors: bool = False
    balance: float = 0.0
    z_loss: float = 0.0
    multi_token: float = 0.0
    load: Any = None

    def __post_init__(self) -> None:
        check_number("smoothing", self.smoothing, least=0, below=1)
        for name in ("auxiliary", "balance", "z_loss", "multi_token"):
            check_number(name, getattr(self, name), least=0)
        check_whole("chunk", self.chunk, 1)
        check_flag("factors", self.factors)


@dataclasses.dataclass(frozen=True)
class OutputOptions:
    """Options of the outputs that a recipe's loss is computed from.

    temperature  of the distributions over the vocabulary
    entropy      whether "entropy" is among the outputs
    chunk        tokens whose logits are held at a time
    total        what outputs that are losses themselves are divided by: the number of targets of
                 the whole step
    """

    temperature: float = 1.0
    entropy: bool = False
    chunk: int = 1024
    total: float | None = None

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0)
        check_flag("entropy", self.entropy)
        check_whole("chunk", self.chunk, 1)
        check_number("total", self.total, above=0, or_none=True)


class LossInputs(NamedTuple):
    """What a loss head is made for; see Trainable.  weights: of a causal model's targets."""

    targets: Arrays
    total: Arrays | None = None
    options: LossOptions = LossOptions()
    weights: Any = None


class Trainable(Protocol):
    """A model in training.

    `inputs` is a dict of arrays on the model's device with the samples on the first axis:
    "input_ids" (B, T), others, and "key" (B,) uint64, one key for each sample, if there is dropout.
    `targets` is {output: array}, each aligned with that output; -100 is ignored among integers, NaN
    among real numbers.
    `total` is {output: the number of targets of the whole step}, what the loss is divided by, so
    that losses and gradients of parts of a batch add up to those of the batch.
    """

    params: Tree  # the trained arrays; training assigns to it
    device: str

    @property
    def width(self) -> int:
        """D, the width that training compares head_rows with to choose LossOptions.factors."""

    def head_rows(self, targets: Arrays) -> int:
        """The number of hidden states that go through a head over the vocabulary, of all samples of
        `targets`; 0 without such a head."""

    def loss(
        self, *, targets: Arrays, total: Arrays | None = None, grad: bool = True, **inputs: Any
    ) -> tuple[Any, Callable[[Any], Tree] | None]:
        """loss (0-dimensional); backward(dloss) gives a tree like params; None without grad."""

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
        """`loss` for one shard of a step, with the gradient in parts.

        backward(dloss) is called once.  It calls emit(path, gradient) for each part, a tree that
        belongs at `path` of params ("" is the root), and returns the remaining parts, partial trees
        from the root whose leaves are arrays, core.Rows or core.Product.  Every shard emits the
        same parts in the same order, and no array twice.
        """

    def outputs_in_parts(
        self,
        emit: Emit,
        inputs: Arrays,
        *,
        targets: Arrays | None = None,
        options: OutputOptions = OutputOptions(),
        stacking: StackOptions = StackOptions(),
    ) -> tuple[dict[str, Any], Callable[[Arrays], list[Tree]]]:
        """The outputs that a recipe's loss is a function of, with the gradient in parts.

        Such as {"log_probs" (B, T), "hidden" (B, T, D)} of the targets {"logits": (B, T)}: arrays
        with the samples on the first axis, or 0-dimensional sums.  backward(doutputs), in which a
        missing or None part is zero, works as for loss_in_parts.
        """

    def with_params(self, params: Tree) -> Trainable:
        """The same model with other parameters, a tree of the same kind."""
