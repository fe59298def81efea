"""What a tokenizer does between its components: the start of a text, added and special tokens, offsets, streams."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyplm.tokenizers import Tokenizer
from tinyplm.tokenizers.models.bpe import BPE
from tinyplm.tokenizers.text.added_tokens import AddedToken, AddedTokens
from tinyplm.tokenizers.text.alignment import Aligned
from tinyplm.tokenizers.text.decoding import ByteFallback, Fuse
from tinyplm.tokenizers.text.decoding import Sequence as Decoders
from tinyplm.tokenizers.text.encoding import Padding, Truncation
from tinyplm.tokenizers.text.normalization import Lowercase, Strip
from tinyplm.tokenizers.text.postprocessing import TemplateProcessing
from tinyplm.tokenizers.text.pretokenization import Metaspace, Split
from tinyplm.tokenizers.text.pretokenization import Sequence as PreTokenizers
from tinyplm.tokenizers.training.recipes import RECIPES

from .test_tokenizer import KINDS, SIZES, TEXTS, letters


@pytest.fixture(scope="module")
def trained():
    return {kind: Tokenizer.train(TEXTS, SIZES[kind], kind=kind) for kind in RECIPES}


# ---- the start of a text


def test_only_the_first_word_of_the_text_gets_a_space():
    at_first = Metaspace("▁", "first")
    added = [AddedToken("<s>", 7, special=False)]
    for pre_tokenizer in at_first, PreTokenizers((at_first,)):
        for normalizer in None, Lowercase():
            tokenizer = letters(pre_tokenizer=pre_tokenizer, normalizer=normalizer, added_tokens=added)
            for text, ids in {"a": [0, 1], "a<s>b": [0, 1, 7, 2], "<s>b": [7, 2]}.items():
                assert tokenizer.encode(text) == ids == tokenizer.encoding(text).ids


def test_what_is_dropped_in_front_was_the_beginning():
    """As in the library `tokenizers`: a text that lost its first character has no first word (tests/interop)."""
    at_first = Metaspace("▁", "first")
    for pre_tokenizer in at_first, PreTokenizers((at_first,)):
        tokenizer = letters(pre_tokenizer=pre_tokenizer, normalizer=Strip())
        for text, ids in {"a b": [0, 1, 0, 2], " a b": [1, 0, 2], "  ": []}.items():
            assert tokenizer.encode(text) == ids == tokenizer.encoding(text).ids


def test_a_normalized_token_at_the_beginning():
    added = [AddedToken("C", 7, special=False, normalized=True)]
    tokenizer = letters(pre_tokenizer=Metaspace("▁", "first"), normalizer=Lowercase(), added_tokens=added)
    for text, ids in {"Ca": [7, 1], "cAC": [7, 1, 7], "ac": [0, 1, 7]}.items():
        assert tokenizer.encode(text) == ids == tokenizer.encoding(text).ids


# ---- between the parts


def test_offsets_are_places_in_the_whole_text():
    added = [AddedToken("<s>", 7)]
    tokenizer = letters(added_tokens=added, normalizer=Strip(), pre_tokenizer=Split({"String": "b"}, "Isolated"))
    encoding = tokenizer.encoding("<s> ab<s>b", allow_special=True)
    assert encoding.ids == [7, 1, 2, 7, 2]
    assert encoding.offsets == [(0, 3), (4, 5), (5, 6), (6, 9), (9, 10)]
    assert encoding.word_ids == [0, 1, 2, 3, 4]


@KINDS
def test_encodings_without_special_tokens_take_no_text_for_one(trained, kind):
    tokenizer = trained[kind]
    for token in tokenizer.added_tokens:
        text = f"the {token.content}sea"
        for allow_special in (False, True):
            ids = tokenizer.encode(text, allow_special)
            assert tokenizer.encoding(text, allow_special=allow_special, add_special_tokens=False).ids == ids
            assert (token.id in ids) == allow_special or "unk" in token.content.lower()  # unknown characters are still text


def test_room_for_special_tokens():
    template = TemplateProcessing.of("< $A >", "< $A > $B:1 >", {"<": 5 - 1, ">": 5})
    tokenizer = letters(post_processor=template)
    cut = Truncation(4)
    assert tokenizer.encoding("abcab", truncation=cut).ids == [4, 1, 2, 5]
    assert tokenizer.encoding("abcab", truncation=cut, add_special_tokens=False).ids == [1, 2, 3, 1]
    assert tokenizer.encoding("ab", "cab", truncation=Truncation(5)).ids == [4, 1, 5, 3, 5]
    assert tokenizer.encoding("ab", "", truncation=cut).ids == [
        4,
        1,
        5,
        5,
    ]  # an empty text is still a text
    assert tokenizer.encode("ab", add_special_tokens=True) == [4, 1, 2, 5]


def test_settings_that_are_given_go_before_those_of_the_file():
    tokenizer = letters(padding=Padding(pad_id=1), truncation=Truncation(2))
    assert tokenizer.batch(["abc", "b"])["input_ids"].tolist() == [[1, 2], [3, 1], [2, 1]]
    given = tokenizer.batch(["abc", "b"], padding=Padding(pad_id=0), truncation=Truncation(3))["input_ids"]
    assert given.tolist() == [[1, 2, 3], [2, 0, 0]]


def test_without_a_decoder_tokens_are_joined_by_spaces():
    assert letters().decode([1, 2, 3]) == "a b c"


def test_an_added_token_is_text_though_it_looks_like_bytes(trained):
    parts = trained["byte-level BPE"].parts
    added = [*parts["added_tokens"], AddedToken("é", len(parts["model"].vocab), special=False)]
    parts["model"] = BPE(
        {t: id for t, id in parts["model"].vocab.items() if t != "é"} | {"¡é": parts["model"].vocab["é"]},
        [],
    )
    tokenizer = Tokenizer(**parts | {"added_tokens": added})
    ids = tokenizer.encode("caféx")
    assert added[-1].id in ids and tokenizer.decode(ids) == "caféx" and tokenizer.decode_bytes(ids) == "caféx".encode()


def test_the_end_of_a_document():
    added = [AddedToken("<|endoftext|>", 7), AddedToken("</s>", 8)]
    assert letters(added_tokens=added).eos_id == 7
    assert letters(added_tokens=added, named={"eos_token": "</s>"}).eos_id == 8
    assert letters(added_tokens=added, named={"eos_token": "<no>"}).eos_id is None
    assert letters().eos_id is None


def test_text_that_is_one_word_is_cut_where_no_token_goes_across():
    """The text may be a book: unsplit, it would be one entry in the cache, or none at all."""
    model = BPE({"▁": 0, "a": 1, "b": 2, "▁a": 3, "ab": 4}, [("a", "b"), ("▁", "a")])
    for pre_tokenizer in None, Metaspace("▁", "never", split=False):
        tokenizer = Tokenizer(model, pre_tokenizer=pre_tokenizer)
        assert tokenizer.encode("▁a▁ab▁▁b") == [3, 0, 4, 0, 0, 2]
        assert {*tokenizer._caches[False]} == {"▁a", "▁ab", "▁▁b"}


# ---- added tokens


@given(
    st.lists(st.text("ab\n(", min_size=1, max_size=5), min_size=1, max_size=12),
    st.text("ab\n(", max_size=30),
)
def test_the_longest_token_at_the_leftmost_place(contents, text):
    tokens = [AddedToken(content, id, special=False) for id, content in enumerate(dict.fromkeys(contents))]
    expected, place = [], 0
    while place < len(text):
        fitting = [token for token in tokens if text.startswith(token.content, place)]
        if fitting:
            best = max(fitting, key=lambda token: len(token.content))
            expected.append((place, place + len(best.content), best.id))
            place += len(best.content)
        else:
            place += 1
    assert [found for found in AddedTokens(tokens, None).find(text, False, False) if found[2] is not None] == expected


def test_thousands_of_added_tokens_cost_no_more():
    tokens = [AddedToken(f"{number:05d}x", number, special=False) for number in range(5000)]
    text = "12345 04999y 03333x " * 10_000
    start = time.perf_counter()
    found = AddedTokens(tokens, None).find(text, False, False)
    assert len(found) == 20_001 and found[1] == (13, 19, 3333)
    assert time.perf_counter() - start < 4  # testing each token in turn takes 100 s


def test_white_space_goes_along_once():
    find = AddedTokens([AddedToken("<a>", 0, False, rstrip=True), AddedToken("<b>", 1, False, lstrip=True)], None).find
    assert find("<a>  <b>", False, False) == [(0, 5, 0), (5, 8, 1)]
    assert find("<a>  ", False, False) == [(0, 5, 0)] and find("<b>", False, False) == [(0, 3, 1)]
    assert AddedTokens([AddedToken("  ", 0, False, normalized=True)], str.strip).find("ab", True, False) == [(0, 2, None)]


# ---- the model


def test_a_special_token_that_merges_make_is_only_text():
    merges = [("<", "a"), ("<a", ">"), ("a", "b")]
    model = BPE({"<": 0, "a": 1, ">": 2, "<a": 3, "<a>": 4, "ab": 5, "b": 6}, merges)
    for ignore_merges in (False, True):
        tokenizer = Tokenizer(replace(model, ignore_merges=ignore_merges), added_tokens=[AddedToken("<a>", 4)])
        assert tokenizer.encode("<a>ab") == [3, 2, 5] == tokenizer.encoding("<a>ab").ids
        assert tokenizer.encode("<a>ab", allow_special=True) == [4, 5]


def test_a_word_that_is_a_token_without_a_merge_is_text_too_if_special():
    model = BPE({"<": 0, "a": 1, "<a": 2}, [], ignore_merges=True)
    assert Tokenizer(model).encode("<a") == [2]
    assert Tokenizer(model, added_tokens=[AddedToken("<a", 2)]).encode("<a") == [0, 1]


def test_unk_token_stays_though_it_is_special():
    model = BPE({"a": 0, "?": 1}, [], unk_token="?")
    tokenizer = Tokenizer(model, added_tokens=[AddedToken("?", 1)])
    assert tokenizer.encode("ax") == [0, 1]


def test_marks_make_a_word_that_must_not_be_cut():
    model = BPE({"▁": 0, "a": 1, "a</w>": 2, "▁</w>": 3}, [], end_of_word_suffix="</w>")
    assert Tokenizer(model).encode("a▁a") == [1, 0, 2]
    assert Tokenizer(model).encode("a") == [2]


# ---- streams


def test_a_stream_after_text_of_byte_tokens():
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"a": 256}
    tokenizer = Tokenizer(BPE(vocab, [], byte_fallback=True), decoder=Decoders((ByteFallback(), Fuse())))
    before, more = tokenizer.encode("a好"), tokenizer.encode("你a")
    stream = tokenizer.stream(after=before)
    assert "".join(map(stream.push, more)) + stream.finish() == "你a"
    stream = tokenizer.stream(after=before[1:])
    assert "".join(map(stream.push, more)) + stream.finish() == "你a"


def test_a_stream_after_special_tokens_that_are_skipped(trained):
    tokenizer = trained["WordPiece"]
    ids = tokenizer.encode("the sea")
    stream = tokenizer.stream(skip_special=True, after=[tokenizer.named_id("cls_token")])
    assert "".join(map(stream.push, ids)) + stream.finish() == tokenizer.decode(ids) == "the sea"


@KINDS
def test_special_tokens_are_skipped_in_a_stream(trained, kind):
    tokenizer = trained[kind]
    ids = [
        tokenizer.added_tokens[0].id,
        *tokenizer.encode("the sea"),
        tokenizer.added_tokens[-1].id,
    ]
    stream = tokenizer.stream(skip_special=True)
    assert "".join(map(stream.push, ids)) + stream.finish() == tokenizer.decode(ids, skip_special=True)
    assert stream.finish() == ""
    stream = tokenizer.stream(skip_special=True)
    with pytest.raises(ValueError, match="expected ids of the vocabulary"):
        stream.push(len(tokenizer))


# ---- alignment


def test_an_inserted_character_in_front_points_to_where_the_text_begins():
    piece = Aligned.of("ab", 5).changed([("▁", 1), ("x", 0), ("y", 1), ("b", 0)])
    assert piece.text == "▁xyb" and piece.spans == [(5, 5), (5, 6), (5, 6), (6, 7)]
    assert piece.part(1, 3).start == 5 and piece.part(3, 4).start == 6
    assert piece.original(1, 4) == (5, 7) and piece.original(3, 3) == (6, 6) and piece.original(4, 4) == (7, 7)
    assert Aligned.of("", 5).original(0, 0) == (5, 5)
    assert Aligned.of("abcd").changed([("x", -2), ("d", 0)]).spans == [(0, 1), (3, 4)]


# ---- files


def test_merges_with_spaces_are_written_as_pairs():
    model = BPE({"a": 0, " ": 1, "a ": 2}, [("a", " ")])
    content = model.to_json()
    assert content["merges"] == [["a", " "]] and BPE.from_json(content, "file") == model


def test_a_number_is_not_true_and_what_is_off_is_let_through():
    assert AddedToken.from_json({"id": 0, "content": "a", "later": False, "more": []}, "file") == AddedToken("a", 0)
    for wrong in {"special": 1}, {"id": True}, {"later": True}:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AddedToken.from_json({"id": 0, "content": "a"} | wrong, "file")


def test_sampled_segmentations():
    """Words are sampled independently, the key decides, and a large alpha leaves only the best segmentation."""
    tokenizer = Tokenizer.train(TEXTS, 200, kind="Unigram")
    text = "low lower lowest low lower lowest low"
    drawn = {tuple(tokenizer.sample(text, key, alpha=0.1)) for key in range(20)}
    assert len(drawn) > 10 and tokenizer.sample(text, 3) == tokenizer.sample(text, 3)
    assert all(tokenizer.decode(ids) == text for ids in drawn)
    spelled = "|".join(tokenizer.id_to_token(id) for id in tokenizer.sample(" lowest" * 20, 0, alpha=0.1))
    assert len({word.strip("|") for word in spelled.split("▁")}) > 2  # one word is split in several ways
    assert tokenizer.sample(text, 0, alpha=1000.0) == tokenizer.encode(text)
    assert tokenizer.sample("low</s>", 1, allow_special=True)[-1] == tokenizer.eos_id
    assert tokenizer.eos_id not in tokenizer.sample("low</s>", 1)
    with pytest.raises(ValueError, match="model: expected a Unigram model to sample from, got BPE"):
        Tokenizer.train(TEXTS, 300).sample(text, 0)
