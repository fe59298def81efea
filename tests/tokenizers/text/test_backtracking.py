"""Regular expressions from files: potentially slow ones get a time limit, the usual ones run without a clock."""

from __future__ import annotations

import random
import time

import pytest
import regex

from tests.support.hostile_tokenizers import BOMBS
from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.models.bpe import BPE
from tinyplm.tokenizers.text import patterns
from tinyplm.tokenizers.text.alignment import Aligned
from tinyplm.tokenizers.text.backtracking import Limited
from tinyplm.tokenizers.text.bytelevel import GPT2_PATTERN
from tinyplm.tokenizers.text.decoding import BPEDecoder, Fuse
from tinyplm.tokenizers.text.decoding import Replace as DecoderReplace
from tinyplm.tokenizers.text.decoding import Sequence as Decoders
from tinyplm.tokenizers.text.normalization import ByteLevel, Prepend, Replace
from tinyplm.tokenizers.text.normalization import Sequence as Normalizers
from tinyplm.tokenizers.text.patterns import compile_pattern
from tinyplm.tokenizers.text.pretokenization import ByteLevel as Bytes
from tinyplm.tokenizers.text.pretokenization import Sequence as PreTokenizers
from tinyplm.tokenizers.text.pretokenization import Split

USUAL = [
    GPT2_PATTERN,
    *(
        patterns.CL100K_PATTERN,
        patterns.QWEN2_PATTERN,
        patterns.O200K_PATTERN,
        *patterns.DEEPSEEK3_PATTERNS,
    ),
    *(" {2,}", r"\A +", r"\s+", r"\w+|[^\w\s]+", r"\s?\p{P}+", r" ?[^(\s|[.,!?…。，、।۔،])]+"),
]
SLOW = [
    *(
        r"(?:a|aa)+$",
        r"(a+)+$",
        r"(a*)*b",
        r".*.*.*x",
        r"(?:a?){40}a{40}",
        "a?" * 30 + "a" * 30,
        "(?:a|aa)" * 30 + "b",
    ),
    *(
        r"(?:(?:^){4}){4}",
        r"(\w+\s?)+$",
        r"(?:a{0,50}){0,50}b",
        r"a*a*a*b",
        r"(?:a+|b)*c",
        r"(?:a{1,2})+b",
        r"(?=.*a)(?=.*b).*c",
    ),
    *("a{0,30}a{0,30}a{0,30}b", r"a*(?!(?=([ab])*))"),
    *(
        "a+b",
        r"(?=a*b)a",
        "a{1,60000}b",
        r"^\s+|\s+$",
        r"\s+(?!\S)|\S+",
        r"\s+|\s*\n",
        r"\d{1,3}(?=(?:\d{3})*\b)",
    ),
]


@pytest.mark.parametrize("expression", USUAL)
def test_usual_expressions_run_without_a_clock(expression):
    assert isinstance(compile_pattern({"Regex": expression}), regex.Pattern)


@pytest.mark.parametrize("expression", SLOW)
def test_others_have_a_limit(expression):
    assert isinstance(compile_pattern({"Regex": expression}), Limited)


def test_a_limit_is_kept_and_said():
    expression, text = r"(?:a|aa)+$", "a" * 60 + "!"
    begin = time.process_time()
    with pytest.raises(ValueError, match=r"regular expression '\(\?:a\|aa\)\+\$': expected a fast one"):
        Split({"Regex": expression}, "Isolated").cut(text)
    with pytest.raises(ValueError, match="expected a fast one, got a timeout"):
        Replace({"Regex": expression}, "b").aligned(Aligned.of(text))
    assert time.process_time() - begin < 2
    assert Split({"Regex": expression}, "Isolated").cut("baaa") == [
        "b",
        "aaa",
    ]  # fast matches still give the right result


def test_all_expressions_and_words_of_a_text_share_one_limit(monkeypatch):
    monkeypatch.setattr("tinyplm.tokenizers.text.backtracking.SECONDS", 0.1)
    slow, many = {"Regex": r"(?:a|aa)+$"}, ("a" * 24 + "b ") * 1000
    words = PreTokenizers((Split({"String": " "}, "Removed"), Split(slow, "Isolated")))
    vocabulary = BPE({"a": 0, "b": 1, " ": 2}, [])
    steps = [{"pre_tokenizer": words}, {"normalizer": Normalizers((Replace(slow, "b"),) * 1000)}]
    for step in steps:
        tokenizer = Tokenizer(vocabulary, **step)
        for call in (tokenizer.encode, tokenizer.encoding):
            begin = time.process_time()
            with pytest.raises(ValueError, match="expected a fast one, got a timeout"):
                call(many)
            assert time.process_time() - begin < 2
            assert tokenizer.token_to_id("a") in tokenizer.encode("aab")  # the next call gets its own time limit
    decoder = Decoders((Fuse(), *(DecoderReplace(slow, "x"),) * 1000))
    with pytest.raises(ValueError, match="expected a fast one, got a timeout"):
        Tokenizer(vocabulary, decoder=decoder).decode([0] * 26 + [1])


@pytest.mark.parametrize("expression", USUAL)
@pytest.mark.parametrize("text", ["a", " ", "\n", "!", "7", " \t", "aé漢🙂 \u0301\n", "ǅ", "'s"])
def test_usual_expressions_take_time_in_proportion(expression, text):
    begin = time.process_time()
    compile_pattern({"Regex": expression}).findall(text * (200_000 // len(text)) + "x")
    assert time.process_time() - begin < 2


def test_a_search_that_tries_each_place_of_a_run_in_vain_is_stopped():
    begin = time.process_time()
    with pytest.raises(ValueError, match="expected a fast one, got a timeout"):
        Replace({"Regex": "a+b"}, "b").aligned(Aligned.of("a" * 100_000))
    assert time.process_time() - begin < 2


def random_expression(numbers, depth=3):
    result = ""
    for _ in range(numbers.randint(1, 4)):
        kind = numbers.random()
        if kind < 0.6 or not depth:
            part = numbers.choice(["a", "a", "b", ".", "[ab]", r"\w", "^", "$", r"\b"])
        elif kind < 0.85:
            part = numbers.choice(["(?:", "(", "(?=", "(?!"]) + random_expression(numbers, depth - 1) + ")"
        else:
            part = "a|" + random_expression(numbers, depth - 1)
        result += part + numbers.choice(["", "", "", "*", "+", "?", "{1,3}", "{2}", "{3,}", "{0,9}", "*?", "++"])
    return result


def test_what_runs_without_a_clock_is_fast():
    """Random expressions, on texts for which the slow ones would take hours."""
    numbers, fast, slow = random.Random(0), 0, 0
    while fast < 800:
        try:
            pattern = compile_pattern({"Regex": random_expression(numbers)})
        except ValueError:
            continue
        if isinstance(pattern, Limited):
            slow += 1
            continue
        fast += 1
        for text in ("a" * 2000 + "b", "ab" * 1000, "aab" * 700 + "!"):
            pattern.match(text, timeout=1)
    assert slow > 100


@pytest.mark.parametrize(
    "expression",
    [*BOMBS, "(" * 5000, "a{99999999999999999999}", "(?:(?:(?:a?){1000}){1000}){1000}"],
)
def test_expressions_are_refused_in_one_line_or_read(expression):
    try:
        compile_pattern({"Regex": expression})
    except ValueError as error:
        assert str(error).isprintable() and len(str(error)) < 400


def test_forty_doublings_are_refused():
    grow = Replace({"String": "a"}, "aa")
    chains = (
        [grow] * 40,
        [Normalizers((grow, grow))] * 20,
        [ByteLevel()] * 40,
        [Replace({"Regex": "a"}, "aa")] * 40,
    )
    for chain in chains:
        for run in (
            Normalizers(tuple(chain)),
            lambda text, chain=chain: Normalizers(tuple(chain)).aligned(Aligned.of(text)),
        ):
            with pytest.raises(
                ValueError,
                match="text: expected at most 64 times its 40 characters, got 10260",
            ):
                run("aé" * 20)
    assert Normalizers((grow,) * 5)("a") == "a" * 32
    for text in ("String", "Regex"):
        for replace in (Replace({text: ""}, "z" * 5000), DecoderReplace({text: ""}, "z" * 5000)):
            with pytest.raises(ValueError, match="text: expected at most 64 times its"):
                replace("abc") if isinstance(replace, Replace) else replace.chain(["abc"])
    for decoder in (BPEDecoder(""), DecoderReplace({"String": "a"}, "aa")):
        with pytest.raises(ValueError, match="text: expected at most 64 times its"):
            Decoders((decoder,) * 40).chain(["aaaa", "b"])
    with pytest.raises(ValueError, match="expected at most 4 ByteLevel, got 5"):
        PreTokenizers((Bytes(), PreTokenizers((Bytes(),) * 4)))
    with pytest.raises(ValueError, match="prepend: expected at most 4096 characters, got 4097"):
        Prepend("a" * 4097)


def test_lone_surrogates_are_refused():
    with pytest.raises(
        ValueError,
        match=r"prepend: expected .*, got the lone surrogate U\+D800 at position 1",
    ):
        Prepend("a\ud800")
    for replace in (Replace, DecoderReplace):
        with pytest.raises(ValueError, match="content: expected text with a UTF-8 form"):
            replace({"String": "a"}, "a\ud800")
