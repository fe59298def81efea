"""Rule-based sentence splitting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyplm.data import sentence_documents, split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["One dog ran.", "Two stayed!", "Why?", "Nobody knows…", "It was late."],
        ["Dr. Smith and Mrs. Jones met J. R. Brown at St. Mary.", "They left."],
        ["It cost $3.50, i.e. more than 2.5 times as much, e.g. in Fig. 3 of sec. 4.1.", "See example.org for No. 5."],
        ["He said no.", "No.", "Then he left.", "With a Dr.?", "Yes."],
        ["The U.S. Army left.", "So did I.", "She stayed."],
        ['"Stop!" she cried.', '"We must go."', "(They did.)", "Then: nothing."],
        ["Wait... what?", "Yes...", "No?!", "Really."],
        ["He came at 5 p.m. sharp.", "“Quoted.”", "‘Also.’", "1984 was a year."],
        ["春天来了。", "“花开了！”", "真的吗？", "他说：好"],
    ],
)
def test_sentences_by_hand(sentences):
    joint = "" if "。" in sentences[0] else " "
    assert split_sentences(joint.join(sentences)) == sentences
    broken = "\n".join(joint.join(sentences).split(" "))  # line breaks do not matter
    assert split_sentences(broken) == sentences


def test_blank_lines_lists_and_code_separate():
    text = """A heading

    x = f(1. + Y)
    return x. Not
>>> print("a. B")
The text goes
on here. And
ends
- first item. It has two.
- second
  goes on

1. Numbered. Yes.
2) Also
"""
    assert split_sentences(text) == [
        "A heading",
        "x = f(1. + Y)",
        "return x. Not",
        '>>> print("a. B")',
        "The text goes on here.",
        "And ends",
        "- first item.",
        "It has two.",
        "- second goes on",
        "1. Numbered.",
        "Yes.",
        "2) Also",
    ]


@given(st.text(alphabet=st.sampled_from(list("aA1 .!?…。！？\"'”’»()[]「」\n\t-:>$")) | st.characters(), max_size=60))
def test_nothing_is_lost_and_nothing_is_empty(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in sentences)


def test_long_text_without_breaks_takes_linear_time():
    assert len(split_sentences("Word. " * 100_000)) == 100_000


def test_documents_of_ids():
    texts = ["One. Two three.", " \n ", "- \n\nFour?"]

    def encode(sentence):
        return [len(word) for word in sentence.split() if word != "-"]

    assert sentence_documents(texts, encode) == [[[4], [3, 6]], [[5]]]
