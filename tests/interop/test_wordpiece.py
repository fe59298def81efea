"""WordPiece against the library `tokenizers`: ids and offsets must be equal."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.interop.test_tokenizers import CORPUS
from tests.support.hard_strings import HARD
from tinyplm.tokenizers.models.wordpiece import WordPiece
from tinyplm.tokenizers.training.wordpiece import train_wordpiece

hf = pytest.importorskip("tokenizers")


def same(ours: WordPiece, words):
    theirs = hf.Tokenizer(hf.models.WordPiece(**{k: v for k, v in ours.to_json().items() if k != "type"}))
    for word in words:
        encoding = theirs.encode(word)
        spans = ours.encode_spans(word)
        assert [i for i, _, _ in spans] == ours.encode(word) == encoding.ids
        assert [(start, end) for _, start, end in spans] == encoding.offsets
    return theirs


@given(
    st.lists(st.tuples(st.sampled_from(["", "##", "@"]), st.text("ab#é😀", max_size=4)), max_size=12),
    st.lists(st.text("ab#@é😀", max_size=12), max_size=5),
    st.sampled_from(["##", "@", ""]),
    st.integers(0, 12),
)
def test_random_vocabularies(parts, words, prefix, longest):
    tokens = ["<unk>", *dict.fromkeys(prefix + text for prefix, text in parts)]
    vocab = {token: 3 * i for i, token in enumerate(tokens)}  # ids may have gaps
    same(WordPiece(vocab, "<unk>", prefix, longest), words)


def test_hard_strings_as_words():
    words = {word: 1 for text in HARD for word in text.split()}
    letters = {letter for word in words for letter in word}
    vocabulary = train_wordpiece(words, ["[UNK]"], 2 * len(letters) + 400)
    ours = WordPiece({token: i for i, token in enumerate(vocabulary)})
    same(ours, [*words, *HARD])
    assert sum(0 in ours.encode(word) for word in words) == sum(len(word) > 100 or word == "[UNK]" for word in words)


def test_the_model_object_of_a_file_is_theirs():
    ours = WordPiece({"[UNK]": 0, "b": 2, "##b": 1}, max_input_chars_per_word=7)
    model = json.loads(same(ours, ["bb"]).to_str())["model"]
    assert model == ours.to_json() and WordPiece.from_json(model, "model") == ours


def test_a_missing_unknown_token():
    """They also fail where it is needed."""
    theirs = hf.Tokenizer(hf.models.WordPiece(vocab={"a": 0}, unk_token="[UNK]"))
    assert theirs.encode("a").ids == WordPiece({"a": 0}).encode("a")
    with pytest.raises(Exception, match="Missing"):
        theirs.encode("b")


def test_bert_of_transformers_divides_words_alike(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = "low lower lowest slow slower new newer newest wide wider".split()
    vocabulary = train_wordpiece(dict.fromkeys(words, 3), ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], 50)
    vocab = {token: i for i, token in enumerate(vocabulary)}
    theirs = transformers.BertTokenizerFast(vocab=vocab)
    ours = WordPiece(vocab)
    text = " ".join([*words, "slowness", "wildest", "unlow"])
    ids = [i for word in text.split() for i in ours.encode(word)]
    assert theirs(text, add_special_tokens=False)["input_ids"] == ids


@pytest.mark.parametrize("min_frequency", [0, 2])
@pytest.mark.parametrize("texts", [CORPUS, ["low low lower newest widest aaaa aaaaaaa ababab babab"]])
def test_training_by_frequency(texts, min_frequency):
    """Their order of "##" letters differs between runs, and so does the winner among tied pairs; so we take it from them."""
    theirs = hf.Tokenizer(hf.models.WordPiece(unk_token="[UNK]"))
    theirs.pre_tokenizer = hf.pre_tokenizers.WhitespaceSplit()
    special = {"special_tokens": ["[UNK]"], "show_progress": False, "min_frequency": min_frequency}
    theirs.train_from_iterator(texts, hf.trainers.WordPieceTrainer(vocab_size=800, **special))
    vocabulary = sorted(theirs.get_vocab(), key=theirs.get_vocab().get)
    letters = [token for token in vocabulary if len(token.removeprefix("##")) == 1]
    initial = vocabulary[: 1 + len(letters)]
    assert set(initial) == {"[UNK]", *letters}

    words = Counter(word for text in texts for word in text.split())
    both_forms = 1 + 2 * len({letter for word in words for letter in word})  # they leave out "##x" if it does not occur
    size = len(vocabulary) - len(initial) + both_forms
    ours = train_wordpiece(words, initial, size, criterion="frequency", min_frequency=min_frequency)
    assert ours[: len(initial)] + ours[both_forms:] == vocabulary
