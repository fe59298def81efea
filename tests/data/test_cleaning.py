"""Steps of rules: by hand, and against the formulas from the papers on random texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.data import cleaning as formulas
from tinyplm.data.cleaning import c4, c4_spans, fineweb, gopher_quality, gopher_repetition, repeats, unicode, words
from tinyplm.data.cleaning.c4 import sentence_places
from tinyplm.data.pipeline import Document, Ragged

FEW = settings(max_examples=25)
VOCABULARY = "the be to of and cat Python don't 12 # ... -- • - 中 文 字。 é² x… good. Why? a1 ½".split()
TEXTS = st.lists(
    st.tuples(st.sampled_from(VOCABULARY), st.sampled_from([" ", " ", " ", "\n", "\n\n", "  \n"])), min_size=1, max_size=90
).map(lambda pairs: "".join(word + gap for word, gap in pairs))


def outcome(step, text):
    document, counts = step(Document(text, "a"))
    return (None if document is None else document.text), counts


def reason(step, text):
    document, counts = step(Document(text, "a"))
    assert (document is None) == bool(counts)
    return next(iter(counts), None)


@FEW
@given(TEXTS)
def test_words_lines_paragraphs(text):
    assert words.words_of(text) == (formulas.words(text), formulas.unspaced(text))
    assert words.lines_of(text) == formulas.lines(text)
    assert words.paragraphs_of(text) == formulas.paragraphs(text)


@FEW
@given(TEXTS, st.integers(1, 4))
def test_rules_of_documents(text, times):
    """Repeated, so that all limits are crossed; untouched documents are the same object."""
    text *= times
    for make in (gopher_quality, gopher_repetition, fineweb):
        document = Document(text, "a")
        kept, counts = make()(document)
        assert (kept is document) == getattr(formulas, make.__name__)(text), counts
        assert kept is None or not counts


@FEW
@given(st.lists(st.integers(0, 4), max_size=60), st.integers(0, 1))
def test_repeated_ngrams(numbers, gap):
    found = ["abcde"[: n + 1] for n in numbers]
    ids, lengths = repeats.word_ids(found)
    for n, top, covered in repeats.repeated_ngrams(ids, lengths, 6, gap):
        # of several that are most frequent both take the first
        assert top == formulas.top_ngram(found, n, gap)
        assert covered == formulas.covered(found, n)


GOOD = "the cat and the dog have to be with a friend of that kind of people "


@pytest.mark.parametrize(
    "text, settings, expected",
    [
        (GOOD * 3, {}, "fewer than 50 words"),
        (GOOD * 4, {}, None),
        (GOOD * 4, {"most_words": 63}, "more than 63 words"),
        ("a b of the " * 20, {}, "words shorter than 3 on average"),
        ("unbelievabilities of the internationalization " * 20, {}, "words longer than 10 on average"),
        (GOOD * 4 + "people# " * 9, {}, "more than 0.1 hash signs for each word"),
        (GOOD * 4 + "... … " * 5, {}, "more than 0.1 ellipses for each word"),
        (("- " + GOOD + "\n") * 5, {}, "more than 90% of lines with bullets"),
        ((GOOD + "…\n") * 5, {}, "more than 30% of lines end with an ellipsis"),
        (GOOD * 4 + "1000 " * 20, {}, "fewer than 80% of words with a letter"),
        ("quick brown foxes jump " * 20, {}, "fewer than 2 stop words"),
        ("quick brown foxes jump " * 20, {"least_stop_words": 0}, None),
        ("天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。" * 4, {}, None),  # neither length nor stop words
        ("天地玄黄，宇宙洪荒。", {}, "fewer than 50 words"),
    ],
)
def test_each_rule_of_gopher(text, settings, expected):
    assert reason(gopher_quality(**settings), text) == expected


def test_each_rule_of_repetition_and_fineweb():
    distinct = " ".join(f"word{n}" for n in range(200))
    step = gopher_repetition()
    assert reason(step, distinct) is None
    assert reason(step, distinct + "\n\nab" * 3) == "more than 30% of paragraphs are duplicates"
    assert reason(step, distinct + "\nab" * 3) == "more than 30% of lines are duplicates"
    assert "most frequent 2-gram" in reason(step, distinct + " one two" * 90)
    again = " ".join(f"word{n}" for n in range(30))
    assert reason(step, f"{distinct} {again}") == "more than 10% of characters in duplicate 10-grams"
    assert reason(gopher_repetition(duplicate=1.5), f"{distinct} {again}") is None
    page = "\n".join(f"This is the line with number {n} of the whole." for n in range(20))
    assert reason(fineweb(), page) is None
    assert reason(fineweb(), page.replace(".", "")) == "fewer than 12% of lines end with punctuation"
    assert reason(fineweb(), page + "\nshort." * 41) == "more than 67% of lines have at most 30 characters"
    assert reason(fineweb(), page + page[:43]) is None
    assert reason(fineweb(), page + "\n" + page[:44]) == "more than 1% of characters in duplicate lines"
    rows = "\n".join(f"unbelievable-{n}-thirty-characters-long." for n in range(40))
    assert reason(fineweb(), rows) == "more than 0.3 line ends for each word"


# ---- C4


def test_lines_and_pages_of_c4(tmp_path):
    good = "This line has more than five words."
    lines = [good, "No end at all here I think", "Too short.", "It goes on and on and on...",
             "JavaScript is off, so turn it on.",
             "Read our Privacy Policy here and now.", "w" * 1001 + " is a very long word here.",
             "这一行有很多字。", "两字。"]  # fmt: skip
    kept, counts = outcome(c4(), "\n\n".join([*lines, f" {good}[3] ", good]))
    assert kept == "\n".join([good, "这一行有很多字。", good, good])
    assert sorted(counts.values()) == [1, 1, 1, 2, 2]
    for line in lines:
        assert (line in kept.split("\n")) == formulas.c4_line(line)
    assert reason(c4(), f"{good}\n{good}") == "fewer than 3 sentences"
    assert reason(c4(least_sentences=2), f"{good}\n{good}") is None
    assert reason(c4(), f"{good}\n" * 3 + "Here we have Lorem Ipsum once more.") == "lorem ipsum"
    assert reason(c4(), f"{good}\n" * 3 + "if (x) { return the whole thing. }\nif { we do the thing now.") == "braces"
    bad = tmp_path / "bad.txt"
    bad.write_text("darn\ngosh darn\nbad-ass\n糟\n")
    page = f"{good}\n" * 3
    step = c4(bad_words=bad)
    for text, found in (("Darn", True), ("darned", False), ("bad-ass", True), ("xbad-ass", False), ("很糟糕", True)):
        assert (reason(step, f"{page}This is a {text}, is it not.") == "bad words") == found, text


@FEW
@given(TEXTS)
def test_lines_against_the_formula(text):
    kept, _ = outcome(c4(least_sentences=0), text)
    expected = [line.strip() for line in text.splitlines() if formulas.c4_line(line.strip())]
    assert kept == "\n".join(expected)


def spans(texts, n=3):
    step = c4_spans(sentences=n)
    documents = [Document(text, str(i)) for i, text in enumerate(texts)]
    decisions = step.decide(Ragged.of(map(step.read, documents), step.dtype))
    results = [step.apply(d, decisions[i]) for i, d in enumerate(documents)]
    return [(kept and kept.text, counts) for kept, counts in results]


def test_spans_by_hand():
    first, second = "One here. Two here! Three here? Four.", "Zero. one HERE. Two here!\nThree here? Five."
    assert spans([first, second]) == [(first, {}), ("Zero.\n Five.", {"sentences in spans that occurred before": 3})]
    assert spans([first, "Two here! Three here?", first])[1:] == [
        ("Two here! Three here?", {}), (None, {"only spans that occurred before": 1})]  # fmt: skip


@FEW
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=9), max_size=6), st.integers(1, 3))
def test_spans_against_the_definition(letters, n):
    texts = ["".join(f"{letter}. " for letter in some) + "End" for some in letters]
    before, expected = set(), []
    for some in ([*some, "end"] for some in letters):
        runs = [tuple(some[i : i + n]) for i in range(len(some) - n + 1)]
        gone = set()
        for i, run in enumerate(runs):
            if run in before:
                gone |= set(range(i, i + n))
            before.add(run)
        expected.append([s for i, s in enumerate(some) if i not in gone])
    found = [
        [kept[start:end].rstrip(".").lower() for start, end in sentence_places(kept)] if kept else []
        for kept, _ in spans(texts, n)
    ]
    assert found == expected


# ---- Unicode


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a\r\nb\rc\x0bd\u2028e", "a\nb\nc\nd\ne"),
        ("donâ€™t cafÃ© â‚¬ 5Â\xa0km", "don’t café € 5 km"),
        ("donÃ¢â‚¬â„¢t", "don’t"),  # twice
        ("SÃO “Ã” Ã\u2009 Ãœ Â« Â", "SÃO “Ã” Ã  Ãœ Â« Â"),  # may be meant
        ("â\u0080\u0099ä½\xa0å¥½", "’你好"),  # as Latin-1
        ("e\u0301 ﬁ Ａ", "é ﬁ Ａ"),
        ("a\x00b\x1bc\u200bd\u00ade\ufefff\u200dg", "abcdef\u200dg"),
        ("\n\na\u3000b\u00a0c  \t\n\n\n\n  d  e", "a b c\n\n  d  e"),
    ],
)
def test_unicode_by_hand(text, expected):
    kept, counts = outcome(unicode(), text)
    assert kept == expected
    assert (kept == text) == (not counts)
    assert outcome(unicode(), kept) == (kept, {})  # nothing is left to do


def test_unicode_by_choice():
    assert outcome(unicode(form="NFKC"), "ﬁ Ａ ²")[0] == "fi A 2"
    assert outcome(unicode(form="none"), "e\u0301") == ("e\u0301", {})
    off = unicode(form="none", mojibake=False, controls=False, spaces=False)
    assert outcome(off, "cafÃ©\x00 \u3000\n\n\n") == ("cafÃ©\x00 \u3000\n\n\n", {})
    assert outcome(unicode(), "\x00 \n\u200b") == (None, {"no text": 1})
    document = Document("plain text\n    indented", "a")
    assert unicode()(document)[0] is document


def test_mojibake_of_any_text_is_repaired_where_it_is_long():
    rng = np.random.default_rng(1)
    for _ in range(30):
        text = "".join(map(chr, rng.integers(0x4E00, 0x9FFF, 5)))
        read = "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in text.encode())
        assert outcome(unicode(controls=False), read)[0] == text


# ---- wrong settings


@pytest.mark.parametrize(
    "make, settings, name",
    [
        (gopher_quality, {"least_words": -1}, "least_words"),
        (gopher_quality, {"least_words": 9, "most_words": 8}, "most_words"),
        (gopher_quality, {"most_bullets": 1.5}, "most_bullets"),
        (gopher_quality, {"least_stop_words": 9}, "least_stop_words"),
        (gopher_repetition, {"top": 0}, "top"),
        (gopher_repetition, {"most_lines": "x"}, "most_lines"),
        (fineweb, {"short": 1.5}, "short"),
        (c4, {"ends": ""}, "ends"),
        (c4, {"bad_words": "/none"}, "/none"),
        (c4_spans, {"sentences": 0}, "sentences"),
        (unicode, {"form": "NFX"}, "form"),
        (unicode, {"spaces": 1}, "spaces"),
    ],
)
def test_wrong_settings_are_named(make, settings, name):
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got .*$"):
        make(**settings)
