"""Rules: rewards computed from the text of an answer and the record of its prompt.

    exact          1 if the answer is the record's "answer", which may be one text or several
    numeric        1 if the last number of the answer is that of the record's "answer"
    contains       1 if the record's "answer" occurs in the answer
    regex          1 if the record's "pattern" is found in the answer
    format         1 for <think>thoughts</think> and then an answer
    language:zh    the share of the letters that are of the language's script
    length:200     0 up to 80% of 200 tokens, then falling to -1 at 200
    target_length:100   minus the distance from 100 tokens, as a share of 100, at most 1
    rule           what the record's "rule" names, by default exact
    reward.py:f    f(prompt, answer, record) of a file, a number or a dict with "reward"

The first four look at what follows </think>, or stands inside <answer></answer>.  Several with
weights are "exact:1,format:0.2", or weighted({"exact": 1, my_function: 0.2}).

    reward = record_reward("exact,format:0.2", model.tokenizer, records)
    grpo(model, [prompt_ids(tokenizer, template, r["prompt"]) for r in records], reward, settings)

answers    exact, numeric, contains, regex
forms      format, language, length
combined   several rules, the rule of a record, rules by name
texts      text_reward and record_reward: from rules to the function of token ids of grpo and ppo
"""

from .answers import Contains, Exact, Numeric, Pattern
from .combined import RULES, OfRecord, Weighted, parse_rule, weighted
from .forms import Language, MaximumLength, TargetLength, ThinkFormat
from .texts import Rule, record_reward, text_reward

__all__ = [
    "RULES",
    "Contains",
    "Exact",
    "Language",
    "MaximumLength",
    "Numeric",
    "OfRecord",
    "Pattern",
    "Rule",
    "TargetLength",
    "ThinkFormat",
    "Weighted",
    "parse_rule",
    "record_reward",
    "text_reward",
    "weighted",
]
