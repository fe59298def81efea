"""Rules as rewards: from a rule on texts to the function of token ids that grpo and ppo take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...arguments import check_takes, known_arguments, mismatch, wrong
from ...generation.settings import checked_stops
from .rounds import Reward

# rule(prompt, answer, finished) -> a number, or a dict with "reward" and other values to log.
Rule = Callable[[str, str, bool], Any]


@known_arguments
def text_reward(rule: Rule, tokenizer: Any, stop_ids: Iterable[int] | None = None) -> Reward:
    """A reward(prompts, answers) on token ids, made of a rule on texts.

    The rule's `finished` says whether the answer ended with one of stop_ids (by default the
    tokenizer's end token), which is not part of its text, or was truncated.  An answer's text is
    what it adds to the prompt's, so a first word keeps its space: " 4" after "2+2 =".  Special
    tokens are dropped from the prompt's text and kept in the answer's.
    """
    check_takes("rule", rule, "prompt", "answer", "finished")
    if not hasattr(tokenizer, "eos_id"):
        raise wrong("tokenizer", "a Tokenizer, such as model.tokenizer", tokenizer)
    if stop_ids is None:
        if tokenizer.eos_id is None:
            raise mismatch("stop_ids", "token ids, since the tokenizer has no end token", "None")
        stop_ids = [tokenizer.eos_id]
    stops = checked_stops(stop_ids)

    def reward(prompts: list[list[int]], answers: list[list[int]]) -> list[Any]:
        rewards = []
        for prompt, answer in zip(prompts, answers):
            finished = bool(answer) and answer[-1] in stops
            text = tokenizer.decode(answer[:-1] if finished else answer, after=prompt)
            rewards.append(rule(tokenizer.decode(prompt, skip_special=True), text, finished))
        return rewards

    return reward
