"""Tagged words as samples: the first token of a word carries its tag, the others are ignored.     Devlin et al. 2019, sec. 5.3"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any, ClassVar

import numpy as np

from ...arguments import listed, wrong
from ...core import IGNORED
from ...evaluation import metrics, spans
from ...models.model import Model
from ...models.model import check_model as check_is_model
from ...tokenizers.text.encoding import Encoding
from .classes import Samples, encode, label_names, label_number


@dataclasses.dataclass(frozen=True)
class Tags(Samples):
    """Sentences with a tag for each word: {"logits": (tokens,) tags' numbers, IGNORED where no word begins}.

    names   of the tags, by number
    places  of each sentence: for each word its first token, None if it has none (cut off, or nothing but characters that the
            tokenizer drops); such a word is predicted as tag 0
    tags    of each sentence: the right tag's number for each word; [] if nothing is labelled
    """

    PER_TOKEN: ClassVar[bool] = True

    names: list[str] = dataclasses.field(default_factory=list)
    places: list[list[int | None]] = dataclasses.field(default_factory=list)
    tags: list[list[int]] = dataclasses.field(default_factory=list)

    def _targets(self, name: str, numbers: Sequence[int], mask: np.ndarray) -> np.ndarray:
        found = np.full(mask.shape, IGNORED, dtype=np.int64)
        found[mask == 1] = np.concatenate([self.targets[name][n] for n in numbers])
        return found

    def predictions(self, outputs: dict[str, Any]) -> list[list[int]]:
        """A tag's number for each word of each sentence."""
        best = [logits.argmax(axis=-1) for logits in outputs["logits"]]
        return [[0 if place is None else int(tags[place]) for place in places] for tags, places in zip(best, self.places)]

    @property
    def measures(self) -> tuple[str, ...]:
        """F1 of chunks, where all tags are of the form O, B-kind, I-kind."""
        chunked = all(tag == "O" or (tag[:2] in ("B-", "I-") and tag[2:]) for tag in self.names)
        return ("chunk f1", "accuracy") if chunked else ("accuracy",)

    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        found = self.predictions(outputs)
        result = {}
        if "chunk f1" in self.measures:
            named = [[[self.names[tag] for tag in tags] for tags in side] for side in (found, self.tags)]
            result["chunk f1"] = spans.chunk_f1(*named).f1
        return {**result, "accuracy": metrics.accuracy(*(list(chain.from_iterable(side)) for side in (found, self.tags)))}


def tagging(model: Model, sentences: Sequence[Sequence[str]], tags: Sequence[Sequence[str | int]] | None = None, *,
            max_length: int | None = None) -> Tags:  # fmt: skip
    """Sentences as lists of words, with a tag for each, its number or name in id2label, for the task "token_classification".

    The words are joined by spaces and cut as any text; which word a token belongs to is told by the offset of its last character
    (a token may begin with the space before a word).  tags None: only to predict.  max_length: what is longer is cut off.
    """
    check_is_model("model", model)
    if model.task != "token_classification":
        raise ValueError(f"the model's task is {model.task}, expected token_classification")
    if isinstance(sentences, str) or (isinstance(sentences, list) and any(isinstance(words, str) for words in sentences)):
        raise TypeError("expected sentences as lists of words, got a str")
    sentences = listed("sentences", sentences, "a list of sentences, each a list of words")
    sentences = [listed(f"sentence {n}", words, "a list of words") for n, words in enumerate(sentences)]
    for i, words in enumerate(sentences):
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise wrong(f"sentence {i}", "words, none of them empty", words)
    if not sentences:
        raise ValueError("there are no sentences")
    names, numbers = label_names(model.config), []
    if tags is not None:
        tags = listed("tags", tags, "a list of tags for each sentence")
        if len(tags) != len(sentences):
            raise ValueError(f"expected tags for each sentence, got {len(sentences)} sentences and {len(tags)} lists of tags")
        for i, (words, row) in enumerate(zip(sentences, tags)):
            expected = f"a tag for each of {len(words)} words"
            if len(row := listed(f"sentence {i}", row, expected)) != len(words):
                raise wrong(f"sentence {i}", expected, row)
            numbers.append([label_number(tag, names, f"sentence {i}") for tag in row])
    encodings, facts = encode(model, [" ".join(words) for words in sentences], max_length=max_length)
    places = [first_tokens(encoding, words) for encoding, words in zip(encodings, sentences)]
    targets = [_token_targets(len(e), *pair) for e, pair in zip(encodings, zip(places, numbers))]
    return Tags(encodings, {} if tags is None else {"logits": targets}, **facts, names=names, places=places, tags=numbers)


def first_tokens(encoding: Encoding, words: Sequence[str]) -> list[int | None]:
    """The first token of each word of " ".join(words), None for a word without one."""
    ends = list(accumulate(len(word) + 1 for word in words))  # each one past the space behind its word
    word_at = np.repeat(np.arange(len(words)), [len(word) + 1 for word in words])
    found: list[int | None] = [None] * len(words)
    for place, (start, end) in enumerate(encoding.offsets):
        if start < end:  # special tokens have no text
            word = word_at[end - 1]
            if found[word] is None and end != ends[word]:  # not the space alone
                found[word] = place
    return found


def _token_targets(length: int, places: list[int | None], tags: list[int]) -> np.ndarray:
    targets = np.full(length, IGNORED, dtype=np.int64)
    for place, tag in zip(places, tags):
        if place is not None:
            targets[place] = tag
    return targets
