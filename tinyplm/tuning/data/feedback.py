"""Feedback: single answers, each judged desirable or not.               Ethayarajh et al. 2024"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ... import random
from ...arguments import check_list, listed, wrong
from ...tokenizers.chat.formats import Template
from .conversations import check_template, check_tokenizer, conversation, plain, prompt_ids
from .pairs import prompt_length
from .sequences import TokenSequence, check_sequences

Feedback = tuple[TokenSequence, bool]  # whether the answer is desirable


def check_feedback(
    samples: Sequence[Feedback],
    *,
    context: int | None,
    vocabulary: int,
    name: str = "feedback",
    least: int = 0,
) -> None:
    """ValueError unless these are at least `least` judged answers that the model can read."""
    check_list(name, samples, "a list of (TokenSequence, True or False)")
    if len(samples) < least:
        raise ValueError(f"{name}: expected at least {least}, got {len(samples)}")
    for n, sample in enumerate(samples):
        two = isinstance(sample, (tuple, list)) and len(sample) == 2
        if not (
            two and isinstance(sample[0], TokenSequence) and isinstance(sample[1], (bool, np.bool_))
        ):
            raise wrong(f"{name} {n}", "a TokenSequence with True or False", sample)
    answers = [sequence for sequence, _ in samples]
    check_sequences(answers, context=context, vocabulary=vocabulary, name=name)


def mismatched(samples: Sequence[Feedback], *, context: int, key: int) -> list[TokenSequence]:
    """Each sample's prompt with another sample's answer, for KTO's reference point.

    A function of the samples and the key alone: in an order drawn with the key, each prompt gets
    the answer of the next sample, truncated to the context.
    """
    order = random.generator(key).permutation(len(samples)).tolist()
    following = dict(zip(order, [*order[1:], *order[:1]]))
    found = []
    for n, (sequence, _) in enumerate(samples):
        answer = samples[following[n]][0]
        P, start = prompt_length(sequence), prompt_length(answer)
        ids = [*sequence.ids[:P], *answer.ids[start:]][: context + 1]
        counts = [*sequence.counts[:P], *answer.counts[start:]][: context + 1]
        found.append(TokenSequence(ids, counts))
    return found


def feedback(
    tokenizer: Any, template: Template | None, records: Sequence[Mapping[str, Any]]
) -> list[Feedback]:
    """Records of kind "feedback" (see data.records) as judged answers; an error names the record.

    template: as in conversations.preference; only the last answer counts.
    """
    check_tokenizer(tokenizer)
    if template is not None:
        check_template(template)
    expected = "a dict with 'prompt', 'answer' and 'label'"
    found = []
    for n, record in enumerate(listed("records", records, f"a list of records, each {expected}")):
        if not isinstance(record, Mapping) or not {"prompt", "answer", "label"} <= record.keys():
            raise wrong(f"record {n}", expected, record)
        if not isinstance(record["label"], (bool, np.bool_)):
            raise wrong(f"record {n}: label", "True or False", record["label"])
        try:
            sequence = _answer(tokenizer, template, record["prompt"], record["answer"])
        except ValueError as error:
            raise ValueError(f"record {n}: {error}") from None
        found.append((sequence, bool(record["label"])))
    return found


def _answer(tokenizer: Any, template: Template | None, prompt: Any, answer: Any) -> TokenSequence:
    if template is None:
        if not isinstance(prompt, str):
            raise wrong("template", "a Template, since the prompt is a list of messages", template)
        return plain(tokenizer, prompt, answer)
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    whole = conversation(tokenizer, template, [*messages, {"role": "assistant", "content": answer}])
    first = len(prompt_ids(tokenizer, template, prompt))  # earlier answers belong to the prompt
    return TokenSequence(whole.ids, [False] * first + whole.counts[first:])
