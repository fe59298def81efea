"""Decontamination: n-grams of test files are found, counted and cut out."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_deduplication import outcomes
from tinyplm.data.deduplication import decontaminate
from tinyplm.data.deduplication.decontamination import places_of_words, words_of

QUESTION = "Which of these seven old towns, if any, lies North of the great river?"  # 14 words


def filler(name, words=60):
    return " ".join(f"{name}{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(words))


@settings(max_examples=25)
@given(st.text(st.sampled_from(" \n\x1c\u00a0aÉΣ-,。'9\u0301"), max_size=20))
def test_words_and_their_places(text):
    words, places = places_of_words(text)
    assert words == words_of(text)
    for word, (start, end) in zip(words, places):
        assert words_of(text[start:end]) == [word]


@pytest.fixture
def files(tmp_path):
    fields = {"question": QUESTION, "choices": [{"text": "yes"}, 3, "a choice of eight words that counts as one"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(fields) + "\n\n" + json.dumps({"question": filler("q", 20)}))
    (tmp_path / "b.json").write_text(json.dumps([{"c": {"d": QUESTION}}]))
    (tmp_path / "c.txt").write_text(filler("c", 30))
    return [tmp_path / name for name in ("a.jsonl", "b.json", "c.txt")]


def test_cut_with_a_window(files):
    a, b = filler("x"), filler("y")
    texts = [
        f"{a} «which of THESE seven old towns if any lies north of the great» {b}",
        f"{a} which of these seven old towns if any lies north of the lake {b}",  # 12 words
        f"{a} A choice of eight words, that counts as one. {b}",
    ]
    step = decontaminate(files=files, window=20, shortest_piece=50)
    first, second, third = outcomes(step, texts)
    start = texts[0].index("«")
    end = texts[0].index("»") + 1
    assert first[0] == f"{texts[0][: start - 20].strip()}\n\n{texts[0][end + 20 :].strip()}"
    assert first[1] == {f"grams of {files[0]}": 1, f"grams of {files[1]}": 1}
    assert second[0] == texts[1] and not second[1]
    assert third[0] and "choice" not in third[0] and third[1] == {f"grams of {files[0]}": 1}
    dropped = outcomes(decontaminate(files=files, action="drop"), texts)
    assert [text is None for text, _, _ in dropped] == [True, False, True]
    (short,) = outcomes(decontaminate(files=files, window=20, shortest_piece=len(a)), texts[:1])
    assert short[0] is None and short[1] == first[1]


def test_limits_on_pieces_documents_and_share(files):
    parts = [filler(f"p{i}z") for i in range(3)]
    text = f" {QUESTION} ".join(parts)  # two cuts, three pieces
    assert outcomes(decontaminate(files=files, window=0, most_pieces=3), [text])[0][0] == "\n\n".join(parts)
    assert outcomes(decontaminate(files=files, window=0, most_pieces=2), [text])[0][0] is None
    common = decontaminate(files=files, most_documents=2)
    assert outcomes(common, [text] * 3)[0][0] == text and outcomes(common, [text, "", text])[0][0] != text
    assert outcomes(decontaminate(files=files, most_documents=None), [text] * 30)[0][0] != text
    own = len(text.split()) - 13 + 1
    for share, acts in ((4 / own - 1e-9, True), (4 / own + 1e-9, False)):  # of its grams, 2 x 2 are the question's
        step = decontaminate(files=files, share=share, action="drop")
        assert (outcomes(step, [text])[0][0] is None) == acts
    overlapping = f"{parts[0]} {filler('c', 30)} {parts[1]}"  # 18 grams in a row are one cut
    assert outcomes(decontaminate(files=files, window=0), [overlapping])[0][0] == f"{parts[0]}\n\n{parts[1]}"


def test_settings_and_files_are_checked(files, tmp_path):
    (tmp_path / "short.txt").write_text("only seven words are in this file")
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n{"a": \n')
    for settings_, message in (
        ({"files": []}, "files: expected at least one path, got none"),
        ({"files": [tmp_path / "no.txt"]}, f"{tmp_path}/no.txt: expected a file, got none"),
        ({"files": [tmp_path / "short.txt"]}, f"{tmp_path}/short.txt: expected a text of 8 words, got none"),
        ({"files": [tmp_path / "bad.jsonl"]}, f"{tmp_path}/bad.jsonl, line 2: expected valid JSON"),
        ({"files": files, "n": 0}, "n: expected an integer from 1"),
        ({"files": files, "action": "mask"}, "action: expected one of cut, drop, got 'mask'"),
        ({"files": files, "share": 1.5}, "share: expected a finite number >= 0 and <= 1, got 1.5"),
    ):
        with pytest.raises(ValueError) as error:
            decontaminate(**settings_)
        assert str(error.value).startswith(message)
