"""Tagged words as samples: a word's first token carries its tag, the others are ignored.

Devlin et al. 2019, sec. 5.3
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any, ClassVar

import numpy as np

from ...arguments import known_arguments, listed, mismatch, shown, wrong
from ...core import IGNORED
from ...evaluation import metrics, spans
from ...models.model import Model, check_model
from ...tokenizers.text.encoding import Encoding
from .samples import Indices, Samples, check_task, encode, label_names, label_number


@dataclasses.dataclass(frozen=True)
class Tags(Samples):
    """Sentences with a tag for each word.  targets: {"logits": (tokens,) tag numbers or IGNORED}.

    names   of the tags, by number
    places  for each sentence the first token of each word; None for a word without one (truncated,
            or consisting of characters the tokenizer drops), which is predicted as tag 0
    tags    for each sentence the number of each word's tag; [] without labels
    """

    PER_TOKEN: ClassVar[bool] = True

    names: list[str] = dataclasses.field(default_factory=list)
    places: list[list[int | None]] = dataclasses.field(default_factory=list)
    tags: list[list[int]] = dataclasses.field(default_factory=list)

    def _targets(self, name: str, numbers: Indices, mask: np.ndarray) -> np.ndarray:
        found = np.full(mask.shape, IGNORED, dtype=np.int64)
        found[mask == 1] = np.concatenate([self.targets[name][n] for n in numbers])
        return found

    def predictions(self, outputs: dict[str, Any]) -> list[list[int]]:
        """A tag number for each word of each sentence."""
        best = [logits.argmax(axis=-1) for logits in outputs["logits"]]
        return [
            [0 if place is None else int(tags[place]) for place in places]
            for tags, places in zip(best, self.places)
        ]

    @property
    def measures(self) -> tuple[str, ...]:
        """Includes F1 of chunks if all tags have the form O, B-kind or I-kind."""
        chunked = all(tag == "O" or (tag[:2] in ("B-", "I-") and tag[2:]) for tag in self.names)
        return ("chunk f1", "accuracy") if chunked else ("accuracy",)

    def score(self, outputs: dict[str, Any]) -> dict[str, float]:
        sides, result = (self.predictions(outputs), self.tags), {}
        if "chunk f1" in self.measures:
            named = ([[self.names[tag] for tag in tags] for tags in side] for side in sides)
            result["chunk f1"] = spans.chunk_f1(*named).f1
        flat = (list(chain.from_iterable(side)) for side in sides)
        return {**result, "accuracy": metrics.accuracy(*flat)}


@known_arguments
def tagging(
    model: Model,
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str | int]] | None = None,
    *,
    max_length: int | None = None,
) -> Tags:
    """Sentences as lists of words, with tags, for a model with task "token_classification".

    tags: for each word its tag's number, or name in id2label; None: for prediction only.
    The words are joined by spaces and tokenized as any text.  A token belongs to the word of its
    last character, since it may begin with the space before a word.  max_length: longer sentences
    are truncated.
    """
    check_model("model", model)
    check_task(model, "token_classification")
    some = sentences if isinstance(sentences, list) else []
    if isinstance(sentences, str) or any(isinstance(words, str) for words in some):
        raise TypeError(f"sentences: expected lists of words, got {shown(sentences)}")
    sentences = listed("sentences", sentences, "a list of sentences, each a list of words")
    for i, words in enumerate(sentences):
        sentences[i] = words = listed(f"sentence {i}", words, "a list of words")
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise wrong(f"sentence {i}", "words that are not empty", words)
    if not sentences:
        raise ValueError("sentences: expected at least 1, got 0")
    names, numbers = label_names(model.config), []
    if tags is not None:
        tags = listed("tags", tags, "a list of tags for each sentence")
        if len(tags) != len(sentences):
            raise mismatch("tags", f"a list for each of {len(sentences)} sentences", len(tags))
        for i, (words, row) in enumerate(zip(sentences, tags)):
            expected = f"a tag for each of {len(words)} words"
            if len(row := listed(f"sentence {i}", row, expected)) != len(words):
                raise wrong(f"sentence {i}", expected, row)
            numbers.append([label_number(tag, names, f"sentence {i}") for tag in row])
    texts = [" ".join(words) for words in sentences]
    encodings, facts = encode(model, texts, max_length=max_length)
    places = [first_tokens(encoding, words) for encoding, words in zip(encodings, sentences)]
    targets = [_token_targets(len(e), *pair) for e, pair in zip(encodings, zip(places, numbers))]
    by_output = {} if tags is None else {"logits": targets}
    return Tags(encodings, by_output, **facts, names=names, places=places, tags=numbers)


def first_tokens(encoding: Encoding, words: Sequence[str]) -> list[int | None]:
    """The first token of each word in " ".join(words); None for a word without one."""
    ends = list(accumulate(len(word) + 1 for word in words))  # one past the space after each word
    word_at = np.repeat(np.arange(len(words)), [len(word) + 1 for word in words])
    found: list[int | None] = [None] * len(words)
    for place, (start, end) in enumerate(encoding.offsets):
        if start < end:  # special tokens have no text
            word = word_at[end - 1]
            if found[word] is None and end != ends[word]:  # not only the space
                found[word] = place
    return found


def _token_targets(length: int, places: list[int | None], tags: list[int]) -> np.ndarray:
    targets = np.full(length, IGNORED, dtype=np.int64)
    for place, tag in zip(places, tags):
        if place is not None:
            targets[place] = tag
    return targets
