"""Rules as rewards: each by hand, several with weights, functions of a file, and what a bad one says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuning.align.test_learner import tiny
from tinyplm.tokenizers import Tokenizer
from tinyplm.tuning.align.grpo import GRPOSettings, grpo
from tinyplm.tuning.align.ppo import PPOSettings, ppo
from tinyplm.tuning.align.rollouts import Rollouts
from tinyplm.tuning.align.rounds import rewarded
from tinyplm.tuning.align.rules import (
    Contains,
    Exact,
    Language,
    MaximumLength,
    Numeric,
    OfRecord,
    Pattern,
    TargetLength,
    ThinkFormat,
    answers,
    parse_rule,
    record_reward,
    weighted,
)
from tinyplm.tuning.align.rules.answers import final_answer, last_number
from tinyplm.tuning.align.rules.combined import Part

FIVE = {"answer": "5"}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["2 + 3 = 5 <think> </think> the answer is"] * 3, 300, ["<|endoftext|>"])


@pytest.mark.parametrize(("text", "number"), [
    ("1,234.5 km", 1234.5), ("x=-3", -3), ("5-3", 3), ("5 - 3", 3), ("is 42.", 42), ("1e3", 1000), (".5", 0.5), ("-.5", -0.5),
    ("1, 2,3", 3), ("a-1", 1),
    ("1e5e7", 7), ("1e5e", 1e5), ("1.2.3", 0.3), ("1,2345", 2345), ("e5", 5), (".", None),
    ("(3)-2", 2), ("\u22127", -7), ("#### 12,345,678", 12345678), ("no number", None), ("-", None),
])  # fmt: skip
def test_the_last_number(text, number):
    assert last_number(text) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_is_read_back(x):
    assert last_number(f"It is {x!r}.") == x == last_number(f"3 {x:,.400f}" if abs(x) < 1e15 else repr(x))


def test_the_final_answer():
    for text, answer in (("<think>4?</think> 5\n", "5"), ("<think>a</think>b</think>c", "c"), (" 5 ", "5"),
                         ("<think>x</think><answer>\n5 </answer>", "5"),
                         ("<answer>1</answer><answer>2</answer>3", "2")):  # fmt: skip
        assert final_answer(text) == answer


@pytest.mark.parametrize(("rule", "answer", "record", "value"), [
    (Exact(), " 5\n", FIVE, 1), (Exact(), "It is 5", FIVE, 0), (Exact(), "<think>6</think>5", {"answer": 5}, 1),
    (Exact(), "b", {"answer": ["a", "b"]}, 1), (Exact(), "5", {"answer": "55"}, 0),
    (Numeric(), "So 2 + 3 = 5.", {"answer": 5}, 1), (Numeric(), "5 or 6", FIVE, 0), (Numeric(), "five", FIVE, 0),
    (Numeric(), "1,000.0", {"answer": "#### 1000"}, 1), (Numeric(), "0.3334", {"answer": 1 / 3}, 0),
    (Numeric(tolerance=1e-3), "0.3334", {"answer": 1 / 3}, 1), (Numeric(tolerance=1e-3), "1000.9", {"answer": 1000}, 1),
    (Numeric(), "1e999", {"answer": "2e999"}, 0),
    (Contains(), "It is Ada.", {"answer": "Ada"}, 1), (Contains(), "It is ada.", {"answer": "Ada"}, 0),
    (Contains(), "<think>Ada</think>Bob", {"answer": "Ada"}, 0),
    (Pattern(), "abc", {"pattern": "^a.c$"}, 1), (Pattern(), "abcd", {"pattern": "^a.c$"}, 0), (Pattern("b+"), "abc", {}, 1),
    (OfRecord(), "It is 5", {"answer": "5", "rule": "numeric"}, 1), (OfRecord(), "It is 5", FIVE, 0),
    (OfRecord(), "It is 5", {"answer": "5", "rule": "exact:1,contains:0.25"}, 0.25),
])  # fmt: skip
def test_rules_on_answers_by_hand(rule, answer, record, value):
    assert Part.of(rule).values({"answer": answer, "record": record})["reward"] == value
    rule.check(record, "record 0")


@pytest.mark.parametrize(("prompt", "answer", "value"), [
    ("", "<think>a</think>b", 1), ("", "\n<think>a\nb</think>\n\n<answer>b</answer>", 1), ("x<think>\n", "a</think>b", 1),
    ("x", "a</think>b", 0), ("", "b", 0), ("", "<think></think>b", 0), ("", "<think>a</think> ", 0),
    ("", "<think>a</think><answer> </answer>", 0), ("", "b<think>a</think>c", 0), ("", "<think>a", 0),
    ("", "<think>a</think>b<think>c</think>d", 0), ("<think>", "<think>a</think>b", 0),
])  # fmt: skip
def test_thoughts_and_then_an_answer(prompt, answer, value):
    assert ThinkFormat()(prompt=prompt, answer=answer) == value


def test_the_script_of_a_language():
    """The tags are no letters, and neither are digits and signs."""
    for code, text, share in (("zh", "<think>你好</think>ab 12!", 1 / 2), ("en", "<think>你好</think>abc", 3 / 5),
                              ("ja", "ひカ漢a", 3 / 4), ("ru", "Да", 1), ("zh", "12 + 3", 0), ("zh", "", 0),
                              ("en", "é", 1)):  # fmt: skip
        assert Language(code)(answer=text) == share


def test_lengths():
    """The soft overlong punishment: none up to 80 tokens, all at 100."""
    rule = MaximumLength(100)
    assert [rule(tokens=n) for n in (0, 80, 81, 90, 99, 100, 1000)] == [0, 0, -0.05, -0.5, -0.95, -1, -1]
    assert [MaximumLength(100, margin=0)(tokens=n) for n in (100, 101)] == [0, -1]
    assert [MaximumLength(3)(tokens=n) for n in (3, 4)] == [0, -1]  # a fifth of it is no token
    assert [TargetLength(10)(tokens=n) for n in (10, 5, 12, 90)] == [0, -0.5, -0.2, -1]


def test_several_with_weights():
    """The same rule from a text, a dict and functions; each part is logged."""

    def brief(answer):
        return {"reward": len(answer) < 30, "letters": len(answer)}

    given = {"prompt": "2+3", "answer": "<think>a</think>5", "record": FIVE, "finished": True, "tokens": 9}
    found = weighted({"exact": 1, "language:zh": 0.5, brief: -2, Pattern("7"): 3})(**given)
    parts = {
        "reward_exact": 1,
        "reward_language": 0,
        "reward_brief": 1,
        "reward_brief_letters": 17,
        "reward_regex": 0,
        "reward_regex_slow": 0,
    }
    assert found == {"reward": 1 - 2, **parts}
    assert parse_rule("exact:1, format:0.2")(**given) == weighted({"exact": 1, "format:0.4": 0.5})(**given)
    assert parse_rule("exact:1,format:0.2")(**given)["reward"] == 1.2 and parse_rule("exact") == Exact()
    assert parse_rule("length:200").maximum == 200 and parse_rule("exact:2")(**given)["reward"] == 2


@pytest.mark.parametrize(("text", "message"), [
    ("exat", "rule: expected one of exact, numeric, .*, or FILE.py:NAME, got 'exat'"),
    ("language", "rule: expected language:<str>:<weight>, the weight optional, got 'language'"),
    ("language:xx", "rule 'language:xx': language: expected one of .*, got 'xx'"),
    ("length:a", "rule: expected length:<int>:<weight>, the weight optional, got 'length:a'"),
    ("length:0", "rule 'length:0': maximum: expected an integer >= 1, got 0"),
    ("exact:1:2", "rule: expected exact:<weight>, the weight optional, got 'exact:1:2'"),
    ("exact:x", "rule 'exact:x': expected a number as weight, got 'x'"),
    ("exact,exact:2", "rules: expected each name once, got exact"),
    ("none.py:f", "none.py: expected a file, got none"), ("", "rule: expected a non-empty string"),
])  # fmt: skip
def test_bad_names(text, message):
    with pytest.raises(ValueError, match=message):
        parse_rule(text)


def test_a_function_of_a_file(tmp_path, tokenizer):
    """It is called with what it asks for; a record cannot name one, since data are not to run code."""
    path = tmp_path / "reward.py"
    path.write_text("from helping import LIMIT\n\ndef reward(answer, record=None):\n    return len(answer) < LIMIT\n\n"
                    "def odd(question):\n    return 1\n\ndef more(text, **record):\n    return 1\n\n"
                    "class Rules:\n    @staticmethod\n    def all(**given):\n"
                    "        return {'reward': given['tokens'], 'ended': given['finished']}\n")  # fmt: skip
    (tmp_path / "helping.py").write_text("LIMIT = 3\n")
    ids = [tokenizer.encode(text) for text in ("ab", "abc")]
    found = record_reward(f"{path}:reward:0.5,{path}:Rules.all", tokenizer, [{}])([[5]] * 2, ids)
    sizes = [len(i) for i in ids]
    assert [row["reward"] for row in found] == [0.5 + sizes[0], sizes[1]]
    assert found[0] == {"reward": 0.5 + sizes[0], "reward_reward": 1, "reward_Rules.all": sizes[0], "reward_Rules.all_ended": 0}
    for text, message in ((f"{path}:odd", "rule odd: expected a function of some of .prompt, answer, record, finished, "
                                          "tokens., by these names, got one of .question."),
                          (f"{path}:more", "rule more: expected a function of .*, got one of .text, ..record."),
                          (f"{path}:none", "reward.py: expected one of .*, got 'none'")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            parse_rule(text)
    with pytest.raises(ValueError, match="^record 0: rule: expected one of exact, .* rule, got "):
        record_reward("rule", tokenizer, [{"rule": f"{path}:reward"}])


@pytest.mark.parametrize(("rule", "record", "message"), [
    ("exact", {}, 'record 1: expected an "answer" for the rule exact, a text or a number, got only '),
    ("contains", {"answer": ["a", ""]}, r"record 1: expected an .answer. for the rule contains, .*, got \['a', ''\]"),
    ("numeric", {"answer": "five"}, "record 1: expected a number in the answer, got 'five'"),
    ("regex", {"answer": "a"}, "record 1: expected a .pattern. for the rule regex, got only 'answer'"),
    ("regex", {"pattern": "("}, r"record 1: pattern: expected a regular expression, got '\(' \("),
    ("regex", {"pattern": "(" * 5000 + ")" * 5000},
     r"record 1: pattern: expected a regular expression, got .* \(too deeply nested"),
    ("rule", {"answer": "a", "rule": "rule"}, "record 1: rule: expected a rule other than itself, got 'rule'"),
    ("rule", {"answer": "a", "rule": "exact,rule"}, "record 1: rule: expected a rule other than itself, got 'exact,rule'"),
    ("rule", {"answer": "a", "rule": ["exact"]}, r"record 1: rule: expected a non-empty string, got \['exact'\]"),
    ("rule", {"prompt": "a"}, "record 1: expected an .answer. for the rule exact, since it has no rule"),
    ("rule", {"answer": "a", "rule": "numeric"}, "record 1: expected a number in the answer, got 'a'"),
    ("format:1,exact:1", {"prompt": "a"}, "record 1: expected an .answer. for the rule exact"),
])  # fmt: skip
def test_records_are_checked_before_anything_is_drawn(tokenizer, rule, record, message):
    with pytest.raises(ValueError, match=message):
        record_reward(rule, tokenizer, [{"answer": 5, "pattern": "x"}, record])


def _raises(answer):
    raise KeyError("no\nkey")


@pytest.mark.parametrize(("rule", "message"), [
    (_raises, r"reward _raises: expected a number, got KeyError: 'no\nkey'"),
    (lambda answer: float("nan"), "reward <lambda>: expected a finite number, got nan"),
    (lambda answer: "1", "reward <lambda>: expected a finite number, got '1'"),
    (lambda answer: None, "reward <lambda>: expected a finite number, got None"),
    (lambda answer: {"score": 1}, "reward <lambda>: expected a number as \"reward\", got {'score': 1}"),
    (lambda answer: {"reward": 1, "length": np.inf}, "reward <lambda>: expected a finite number as length, got inf"),
])  # fmt: skip
def test_a_bad_reward_is_told_with_its_sample(tokenizer, rule, message, monkeypatch):
    """Also as a part of several."""
    monkeypatch.setattr(answers, "SECONDS", 0.02)
    text = "a" * 60 + "\n!"
    for some in (rule, weighted({"format": 1, rule: 1})):
        reward = record_reward(some, tokenizer, [{}, {}])
        with pytest.raises(ValueError) as error:
            reward([tokenizer.encode("2 + 3 =")], [tokenizer.encode(text)], numbers=[1])
        told = str(error.value)
        assert told.startswith(message) and told.endswith(f"; record 1: prompt '2 + 3 =', answer {text!r}") and told.isprintable()
        assert isinstance(error.value.__cause__, KeyError) == (rule is _raises)


def test_a_pattern_that_takes_too_long_finds_nothing_and_is_logged(tokenizer, monkeypatch):
    monkeypatch.setattr(answers, "SECONDS", 0.02)
    (values,) = record_reward(Pattern("(a|aa)+$"), tokenizer, [{}])([[1]], [tokenizer.encode("a" * 60 + "\n!")], numbers=[0])
    assert values["reward"] == 0 and values["slow"] == 1


RECORDS = [{"answer": n} for n in range(5)]
PROMPTS = [[n + 1, 2] for n in range(5)]


@pytest.mark.parametrize("recipe", ["grpo", "ppo"])
def test_a_recipe_hands_over_the_record_of_each_prompt(recipe, tokenizer):
    """Of prompts that are drawn in any order, several answers to each."""
    seen = []

    def check(prompt, record):
        seen.append((prompt, record["answer"]))
        return {"reward": 0.5, "places": 1.0}

    reward = record_reward(check, tokenizer, RECORDS)
    common = {"steps": 3, "batch_size": 2, "warmup": 0, "max_new_tokens": 2}
    if recipe == "grpo":
        result = grpo(tiny(), PROMPTS, reward, GRPOSettings(**common, group=2), progress=False)
    else:
        result = ppo(tiny(), PROMPTS, reward, PPOSettings(**common), progress=False)
    texts = {tokenizer.decode(prompt, skip_special=True): n for n, prompt in enumerate(PROMPTS)}
    assert len(seen) == 3 * 2 * (2 if recipe == "grpo" else 1) and all(texts[prompt] == n for prompt, n in seen)
    assert len({n for _, n in seen}) > 2 and [values["places"] for values in result.history] == [1.0] * 3


def test_the_token_that_ends_an_answer_is_not_in_its_text():
    """Whichever it is: a turn of a chat ends with another one than a text."""
    tokenizer = Tokenizer.train(["It is 5"] * 3, 280, ["<|endoftext|>", "<|im_end|>"])
    seen = []
    reward = record_reward(lambda answer, finished, tokens: seen.append((answer, finished, tokens)) or 1, tokenizer, [{}])
    five = tokenizer.encode("5")
    for end in ([0], [1], []):
        assert reward([[2]], [[*five, *end]], numbers=[0]) == [{"reward": 1.0}]
    assert seen == [("5", True, 2), ("5", True, 2), ("5", False, 1)]


def test_records_without_numbers_are_in_order(tokenizer):
    drawn = Rollouts([[1], [1], [2], [2]], [tokenizer.encode(text) for text in "5657"], [True] * 4, 2)
    reward = record_reward("exact", tokenizer, [FIVE, {"answer": 7}])
    assert [row["reward"] for row in reward(drawn.prompts, drawn.answers)] == [1, 0, 0, 1]
    assert rewarded(reward, drawn, np.array([1, 0]))["reward"].tolist() == [0, 0, 1, 0]
    with pytest.raises(ValueError, match="answers: expected equally many for each of 2 records, got 3"):
        reward([[1]] * 3, [[1]] * 3)
