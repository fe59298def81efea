"""Rules as rewards: from a rule on texts to the function of token ids that grpo and ppo ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...arguments import check_takes, wrong
from ...generation.decode import checked_stops

# rule(prompt, answer, finished) -> a number, or a dict with "reward" and parts of it that are logged.
Rule = Callable[[str, str, bool], Any]


def text_reward(rule: Rule, tokenizer: Any, stop_ids: Iterable[int] | None = None) -> Callable:
    """reward(prompts, answers) of token ids, for `grpo`, from a rule on the texts of one prompt and one answer.

    finished: whether the answer ended with one of stop_ids (by default the tokenizer's end), which is no part of its text; else
    it was cut.  The answer's text is what it adds to the prompt's, so a first word has its space: " 4" behind "2+2 =".  Special
    tokens are no part of the prompt's text; in an answer they stand as they are.
    """
    check_takes("rule", rule, "prompt", "answer", "finished")
    if not hasattr(tokenizer, "eos_id"):
        raise wrong("tokenizer", "a Tokenizer, such as model.tokenizer", tokenizer)
    if stop_ids is None:
        if tokenizer.eos_id is None:
            raise ValueError("the tokenizer has no token that ends a text: expected stop_ids")
        stop_ids = [tokenizer.eos_id]
    stops = checked_stops(stop_ids)

    def reward(prompts: list[list[int]], answers: list[list[int]]) -> list[Any]:
        given = []
        for prompt, answer in zip(prompts, answers):
            finished = bool(answer) and answer[-1] in stops
            text = tokenizer.decode(answer[:-1] if finished else answer, after=prompt)
            given.append(rule(tokenizer.decode(prompt, skip_special=True), text, finished))
        return given

    return reward
