"""Rules on texts as rewards: functions of the token ids of prompts and answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from ....arguments import check_takes, known_arguments, listed, mismatch, shown, wrong
from ....generation.settings import checked_stops
from ..rounds import Reward
from .combined import Part, Told, parse_rule, weighted

# rule(prompt, answer, finished) -> a number, or a dict with "reward" and other values to log.
Rule = Callable[[str, str, bool], Any]


@dataclasses.dataclass(frozen=True)
class _Texts:
    """Token ids as texts; stops: the tokens that end an answer."""

    tokenizer: Any
    stops: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any, stop_ids: Iterable[int] | None) -> _Texts:
        if not hasattr(tokenizer, "eos_id"):
            raise wrong("tokenizer", "a Tokenizer, such as model.tokenizer", tokenizer)
        if stop_ids is None:
            if tokenizer.eos_id is None:
                expected = "token ids, since the tokenizer has no end token"
                raise mismatch("stop_ids", expected, "None")
            stop_ids = [tokenizer.eos_id]
        return cls(tokenizer, frozenset(checked_stops(stop_ids)))

    def of_answer(self, prompt: list[int], answer: list[int]) -> tuple[str, str, bool]:
        """(the prompt's text, the text that the answer adds to it, whether the answer ended)."""
        finished = bool(answer) and answer[-1] in self.stops
        text = self.tokenizer.decode(answer[:-1] if finished else answer, after=prompt)
        return self.tokenizer.decode(prompt, skip_special=True), text, finished


@known_arguments
def text_reward(rule: Rule, tokenizer: Any, stop_ids: Iterable[int] | None = None) -> Reward:
    """A reward(prompts, answers) on token ids, made of a rule on texts.

    The rule's `finished` says whether the answer ended with one of stop_ids (by default the
    tokenizer's end token), which is not part of its text, or was truncated.  An answer's text is
    what it adds to the prompt's, so a first word keeps its space: " 4" after "2+2 =".  Special
    tokens are dropped from the prompt's text and kept in the answer's.
    """
    check_takes("rule", rule, "prompt", "answer", "finished")
    texts = _Texts.of(tokenizer, stop_ids)

    def reward(prompts: list[list[int]], answers: list[list[int]]) -> list[Any]:
        return [rule(*texts.of_answer(prompt, answer)) for prompt, answer in zip(prompts, answers)]

    return reward


@dataclasses.dataclass(frozen=True)
class RecordReward:
    """A reward that knows the record of each prompt; made by record_reward."""

    context: ClassVar[int | None] = None

    part: Part
    texts: _Texts
    records: list[Mapping[str, Any]]

    def __call__(
        self,
        prompts: Sequence[list[int]],
        answers: Sequence[list[int]],
        *,
        numbers: Sequence[int] | None = None,
    ) -> list[dict[str, float]]:
        """numbers: of each answer's record; None: equally many answers to each record, in order."""
        if numbers is None:
            samples, rest = divmod(len(answers), len(self.records))
            if rest:
                expected = f"equally many for each of {len(self.records)} records"
                raise mismatch("answers", expected, len(answers))
            numbers = [n for n in range(len(self.records)) for _ in range(samples)]
        return [self._values(*row) for row in zip(prompts, answers, numbers)]

    def _values(self, prompt: list[int], answer: list[int], number: int) -> dict[str, float]:
        asked, text, finished = self.texts.of_answer(prompt, answer)
        given = {"prompt": asked, "answer": text, "finished": finished, "tokens": len(answer)}
        try:
            return self.part.values({**given, "record": self.records[number]})
        except Told as error:
            sample = f"prompt {shown(asked, 100)}, answer {shown(text, 100)}"
            raise ValueError(f"{error}; record {number}: {sample}") from error.__cause__


@known_arguments
def record_reward(
    rule: Any,
    tokenizer: Any,
    records: Sequence[Mapping[str, Any]],
    stop_ids: Iterable[int] | None = None,
) -> RecordReward:
    """A reward of grpo and ppo, made of a rule on texts that may look at the prompt's record.

        record_reward("exact:1,format:0.2", tokenizer, records)
        record_reward(lambda answer, record: len(answer) <= record["limit"], tokenizer, records)

    rule: by name (see the package), a dict {rule: weight}, or a function of some of prompt, answer
    (texts as in text_reward), record, finished and tokens (how many the answer has), called by
    these names.  It gives a number, or a dict with "reward" and other numbers to log.
    records: one for each prompt that is passed to the recipe, in the same order.
    stop_ids: as in text_reward; by default every special token, since chats end with other ones.
    ValueError, before anything is drawn, for a record without what the rule needs; in the call, for
    a rule that raises or gives NaN, with its name and the sample.
    """
    if isinstance(rule, str):
        rule = parse_rule(rule)
    elif isinstance(rule, Mapping):
        rule = weighted(rule)
    if stop_ids is None:
        special = [token.id for token in getattr(tokenizer, "added_tokens", ()) if token.special]
        stop_ids = special or None
    part, texts = Part.of(rule), _Texts.of(tokenizer, stop_ids)
    rows = listed("records", records, "a list of records, one for each prompt")
    if not rows:
        raise ValueError("records: expected at least 1, got 0")
    for number, record in enumerate(rows):
        if not isinstance(record, Mapping):
            raise wrong(f"record {number}", "a dict", record)
        part.check(record, f"record {number}")
    return RecordReward(part, texts, rows)
