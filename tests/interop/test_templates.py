# ruff: noqa: E402 - imports follow importorskip
"""Truncation, padding and post-processors: every field of an Encoding equals that of `tokenizers`, including overflow.

The library's own model encodes the texts without special tokens; what follows is ours on one side, theirs on the other.
Two differences are explicitly excluded from the comparison: see `sequences` below and the docstring of postprocessing.py.
"""

from __future__ import annotations

import json

import pytest

tokenizers = pytest.importorskip("tokenizers")

from hypothesis import example, given
from hypothesis import strategies as st

from tinyplm.tokenizers.component import read_component
from tinyplm.tokenizers.text.encoding import Encoding, Padding, Truncation, arrays, pad, truncate
from tinyplm.tokenizers.text.postprocessing import POST_PROCESSORS, Sequence, TemplateProcessing

WORDS = {w: i for i, w in enumerate("abcdefghij")} | {"[UNK]": 10, "[CLS]": 11, "[SEP]": 12, "[PAD]": 13}
CLS, SEP = ["[CLS]", 11], ["[SEP]", 12]


ADDED = ("\u3000b\x1c ", "\t\xa0\x85b\x85\xa0")  # Unicode spaces, and one that only Python counts


def template(single, pair):
    special = [("[CLS]", 11), ("[SEP]", 12)]
    return json.loads(tokenizers.processors.TemplateProcessing(single=single, pair=pair, special_tokens=special).__getstate__())


BERT = {"type": "BertProcessing", "sep": SEP, "cls": CLS}
ROBERTA = {"type": "RobertaProcessing", "sep": SEP, "cls": CLS, "trim_offsets": True, "add_prefix_space": True}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
PLAIN = template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
PROCESSORS = {
    "none": None,
    "template": PLAIN,
    "types": template("[CLS]:5 $A:3 [SEP]:1", "[CLS]:5 $A:3 [SEP]:6 $B:4 [SEP]:1"),
    "other order": template("$A", "$B:2 [SEP] [SEP] $A:3"),
    "twice": template("$A:1 [SEP] $A", "$A:2 $A $B:3 [SEP] $B"),
    "special only": PLAIN | {"single": PLAIN["single"][::2]},
    "several ids": PLAIN | {"special_tokens": {"[CLS]": {"id": "?", "ids": [3, 4], "tokens": ["x", "yy"]},
                                               "[SEP]": {"id": "[SEP]", "ids": [], "tokens": []}}},
    "bert": BERT,
    "roberta": ROBERTA,
    "roberta without prefix": ROBERTA | {"add_prefix_space": False},
    "roberta untrimmed": ROBERTA | {"trim_offsets": False},
    "byte level": BYTES,
    "byte level without prefix": BYTES | {"add_prefix_space": False},
    "byte level untrimmed": BYTES | {"trim_offsets": False},
    "no processors": {"type": "Sequence", "processors": []},
    "bytes, template": {"type": "Sequence", "processors": [BYTES, PLAIN]},
    "template, bytes": {"type": "Sequence", "processors": [PLAIN, BYTES]},
    "bytes, nested bert": {"type": "Sequence", "processors": [BYTES, {"type": "Sequence", "processors": [BERT]}]},
    "roberta, bytes": {"type": "Sequence", "processors": [ROBERTA, BYTES | {"add_prefix_space": False}]},
}  # fmt: skip


def words_tokenizer():
    result = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    result.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return result


def bytes_tokenizer(add_prefix_space):
    """Tokens with many spaces at both ends, and two added tokens."""
    vocab = ["[UNK]", *"Ġabcé", "ĠĠ", "Ġa", "aĠ", "ĠĠĠ", "ĠaĠ", "ĠĠa", "Ċ", "Ã", "©", "ł", "Â"]
    merges = [("Ġ", "Ġ"), ("Ġ", "a"), ("Ġa", "Ġ"), ("a", "Ġ"), ("ĠĠ", "a"), ("ĠĠ", "Ġ")]
    model = tokenizers.models.BPE({token: i for i, token in enumerate(vocab)}, merges, unk_token="[UNK]")
    result = tokenizers.Tokenizer(model)
    result.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=False)
    result.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in ADDED])
    return result


TOKENIZERS = {"words": words_tokenizer(), "bytes": bytes_tokenizer(True), "bytes as they are": bytes_tokenizer(False)}


def with_processor(tokenizer, content):
    """A copy made through the JSON file, which allows settings that the library's Python interface lacks."""
    state = json.loads(tokenizer.to_str()) | {"post_processor": content}
    return tokenizers.Tokenizer.from_str(json.dumps(state))


def ours(theirs, type_id=0):
    return Encoding.of(theirs.ids, theirs.tokens, theirs.offsets, theirs.word_ids, type_id)


def held(encoding, sequences):
    """All its fields, as plain lists."""
    lists = [encoding.ids, encoding.type_ids, encoding.tokens, encoding.offsets, encoding.word_ids]
    lists += [encoding.special_tokens_mask, encoding.attention_mask]
    lists += [encoding.sequence_ids] if sequences else []
    return [list(one) for one in lists], [held(piece, sequences) for piece in encoding.overflowing]


def sequences(content):
    """False where the library loses track of which text is which: in overflow without a post-processor (see
    test_truncation_and_padding), when ByteLevel comes after others, and when the template has no text."""
    parts = [] if content is None else content.get("processors", [])
    return content != PROCESSORS["special only"] and all(part["type"] != "ByteLevel" for part in parts[1:])


def both(kind, content, first, second, special, truncation=None, padding=None):
    """(theirs, ours), or the error of either."""
    bare = TOKENIZERS[kind]
    peer = with_processor(bare, content)
    processor = read_component(content, POST_PROCESSORS, "tokenizer.json post_processor") or Sequence()
    texts = [None if text is None else ours(bare.encode(text), type_id) for type_id, text in enumerate((first, second))]
    added = processor.added(second is not None) if special else 0
    if truncation:
        state = json.loads(peer.to_str()) | {"truncation": truncation.to_json()}
        peer = tokenizers.Tokenizer.from_str(json.dumps(state))
        texts = truncate(*texts, truncation, added)
    result = processor(*texts, special)
    if padding:
        state = json.loads(peer.to_str()) | {"padding": padding.to_json()}
        peer = tokenizers.Tokenizer.from_str(json.dumps(state))
        [result] = pad([result], padding)
    ids = processor.ids(*(None if text is None else text.ids for text in texts), add_special_tokens=special)
    assert padding or ids == result.ids
    return peer.encode(first, second, add_special_tokens=special), result


fragments = st.sampled_from([*" a\nbé\xa0", *ADDED])
texts = {
    "words": st.lists(st.sampled_from("abcdefghij?"), max_size=9).map(" ".join),
    "bytes": st.lists(fragments, max_size=9).map("".join) | st.text(st.sampled_from(" a"), max_size=12),
}
texts["bytes as they are"] = texts["bytes"]


@pytest.mark.parametrize("kind", list(TOKENIZERS))
@pytest.mark.parametrize("name", list(PROCESSORS))
def test_post_processors(kind, name):
    content = PROCESSORS[name]

    @given(texts[kind], st.none() | texts[kind], st.booleans())
    @example("", "", True)
    @example(" a  a ", " a\u3000b\x1c  ", True)
    def check(first, second, special):
        theirs, mine = both(kind, content, first, second, special)
        assert held(mine, sequences(content)) == held(theirs, sequences(content))

    check()


@given(st.lists(st.text(st.sampled_from(" ab"), max_size=4), max_size=3), st.sampled_from([ROBERTA, BYTES]))
def test_texts_given_as_words(words, content):
    """Offsets are relative to each word, so one that starts at 0 may be in the middle."""
    for kind in ("bytes", "bytes as they are"):
        theirs = with_processor(TOKENIZERS[kind], content).encode(words, is_pretokenized=True)
        mine = read_component(content, POST_PROCESSORS, "")(ours(TOKENIZERS[kind].encode(words, is_pretokenized=True)))
        assert held(mine, sequences(content)) == held(theirs, sequences(content))


directions, strategies = st.sampled_from(["Right", "Left"]), st.sampled_from(["LongestFirst", "OnlyFirst", "OnlySecond"])
truncations = st.tuples(st.integers(0, 12), strategies, st.integers(0, 4), directions)
paddings = st.builds(
    Padding,
    st.just("BatchLongest") | st.integers(0, 12).map(lambda n: {"Fixed": n}),
    directions,
    st.none() | st.integers(0, 5),
    st.integers(0, 3),
    st.integers(0, 3),
    st.just("[PAD]"),
)


@pytest.mark.parametrize("kind", ["words", "bytes"])
@pytest.mark.parametrize(
    "name", ["none", "types", "twice", "several ids", "bert", "roberta", "bytes, template", "roberta, bytes"]
)
def test_truncation_and_padding(kind, name):
    """Where the library fails, by exception or panic, we raise ValueError, and vice versa except as noted here."""
    content = PROCESSORS[name]

    @given(texts[kind], st.none() | texts[kind], st.booleans(), truncations, st.none() | paddings)
    @example("a b c d e f g", "h i j a b c", True, (9, "LongestFirst", 1, "Right"), None)
    @example(
        "a b c d e f g", "h i j a b c", True, (9, "LongestFirst", 1, "Left"), Padding(direction="Left", pad_to_multiple_of=5)
    )
    def check(first, second, special, settings, padding):
        length, strategy, stride, direction = settings
        if stride >= length > 0:  # rejected when a Truncation is created
            stride = length - 1
        if length == 0:
            stride = 0
        truncation = Truncation(length, strategy, stride, direction)
        processor = read_component(content, POST_PROCESSORS, "") or Sequence()
        if special and length < processor.added(second is not None):  # here the library does not truncate at all
            with pytest.raises(ValueError, match=f"max_length: expected room for .*, got {length}"):
                both(kind, content, first, second, special, truncation, padding)
            return
        try:
            theirs, mine = both(kind, content, first, second, special, truncation, padding)
        except ValueError as error:
            assert (
                "expected less than the" in str(error)
                or "expected room for a token" in str(error)
                or "expected a second text" in str(error)
            )
            peer = with_processor(TOKENIZERS[kind], content)
            peer = tokenizers.Tokenizer.from_str(json.dumps(json.loads(peer.to_str()) | {"truncation": truncation.to_json()}))
            with pytest.raises(BaseException, match="stride|too short|not provided"):  # a panic is not an Exception
                peer.encode(first, second, add_special_tokens=special)
            return
        known = content is not None and sequences(content)
        assert held(mine, known) == held(theirs, known)

    check()


@given(st.lists(st.tuples(texts["words"], st.none() | texts["words"]), min_size=1, max_size=4), paddings)
def test_batches(batch, padding):
    truncation = Truncation(8, stride=1)
    peer = with_processor(TOKENIZERS["words"], PLAIN)
    peer = tokenizers.Tokenizer.from_str(
        json.dumps(json.loads(peer.to_str()) | {"truncation": truncation.to_json(), "padding": padding.to_json()})
    )
    theirs = peer.encode_batch([first if second is None else (first, second) for first, second in batch])
    processor = TemplateProcessing.of("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", {"[CLS]": 11, "[SEP]": 12})
    bare = TOKENIZERS["words"]
    mine = []
    for first, second in batch:
        pair = (ours(bare.encode(first)), None if second is None else ours(bare.encode(second), 1))
        mine.append(processor(*truncate(*pair, truncation, processor.added(second is not None))))
    mine = pad(mine, padding)
    assert [held(one, True) for one in mine] == [held(one, True) for one in theirs]
    rows = [row for one in theirs for row in (one, *one.overflowing)]
    if len({len(row) for row in rows}) == 1:
        result = arrays(mine)
        assert result["input_ids"].tolist() == [row.ids for row in rows]
        assert result["offsets"].tolist() == [[list(span) for span in row.offsets] for row in rows]


@pytest.mark.parametrize("name", [name for name in PROCESSORS if name != "none"])
def test_post_processors_are_written_as_they_were_read(name):
    component = read_component(PROCESSORS[name], POST_PROCESSORS, "")
    assert component.to_json() == json.loads(json.dumps(component.to_json())) == PROCESSORS[name]


@pytest.mark.parametrize("single", ["$A:2 $ $0 $1 $a [CLS] [SEP]:3", "$2:1 $:4", "$0:2", "", "$A", " [CLS]"])
@pytest.mark.parametrize("pair", ["$A $B", "$b:1 $", "[CLS]:2 $3 $B"])
def test_templates_as_strings(single, pair):
    if single.split(" ") == single.split():  # the library reads two spaces as a token without a name
        assert TemplateProcessing.of(single, pair, {"[CLS]": 11, "[SEP]": 12}).to_json() == template(single, pair)
    else:
        with pytest.raises(ValueError):
            template(single, pair)


@pytest.mark.parametrize(
    "single", ["$C", "$A:x", "$A:٣", "$²", "$٣", "$A:-1", "$-1", "a:", "$A:1:2", "[CLS]:x", "[UNK]", "$A[SEP]", "$é"]
)
def test_templates_that_both_refuse(single):
    with pytest.raises(ValueError):
        template(single, "$A $B")
    with pytest.raises(ValueError, match="template|type id|tokens of special_tokens"):
        TemplateProcessing.of(single, "$A $B", {"[CLS]": 11, "[SEP]": 12})


@given(truncations, paddings)
def test_settings_are_written_as_the_library_writes_them(settings, padding):
    length, strategy, stride, direction = settings
    if stride and stride >= length:
        return
    truncation = Truncation(length, strategy, stride, direction)
    state = json.loads(words_tokenizer().to_str()) | {"truncation": truncation.to_json(), "padding": padding.to_json()}
    written = json.loads(tokenizers.Tokenizer.from_str(json.dumps(state)).to_str())
    assert written["truncation"] == truncation.to_json() and written["padding"] == padding.to_json()
    assert Truncation.from_json(written["truncation"], "") == truncation and Padding.from_json(written["padding"], "") == padding
