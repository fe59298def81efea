"""Text that continues another text: in the tokenizer, and in training, scoring and generation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyplm
from tests.laws import MODEL
from tests.tuning.align.test_learner import SIZES
from tinyplm.tokenizers import RECIPES, AddedToken, Tokenizer
from tinyplm.tokenizers.chat.formats import Template, encode
from tinyplm.tokenizers.files.sentencepiece import SentencePieceModel
from tinyplm.tokenizers.models.bpe import BPE
from tinyplm.tokenizers.text.decoding import ByteLevel
from tinyplm.tokenizers.text.normalization import Prepend, Replace, Sequence
from tinyplm.tokenizers.text.postprocessing import TemplateProcessing
from tinyplm.tokenizers.text.pretokenization import ByteLevel as CutBytes
from tinyplm.tuning.align.rollouts import Rollouts
from tinyplm.tuning.align.rules import text_reward
from tinyplm.tuning.data.conversations import conversation, plain, preference, prompt_ids
from tinyplm.tuning.data.pairs import check_pairs
from tinyplm.tuning.prompts.cloze import Cloze, Prefix, Verbaliser

TEXTS = ["the answer is 4 It was good. It was bad. Q: 2+2\nA: 4 Hi hello world, there it is"] * 5
SIZE = {"SentencePiece BPE": 330, "Unigram": 66, "WordPiece": 110, "byte-level BPE": 330, "BPE": 90}
KINDS = list(RECIPES)


def trained(kind):
    return Tokenizer.train(TEXTS, SIZE[kind], kind=kind)


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: trained(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def llama():
    """LLaMA-style: <s> and ▁ before a text.  Some words are one token; "4" and ":" merge with nothing."""
    ways = ["▁ t h e", "▁ a n", "s w", "e r", "▁ i s", "▁ I t", "▁ w a s", "▁ g o o d", "▁ b a d"]
    merges = []
    for letters in map(str.split, ways):
        merges += [("".join(letters[:n]), letters[n]) for n in range(1, len(letters))]
    merges += [("▁an", "sw"), ("▁answ", "er")]
    vocab = dict.fromkeys([*"▁theanswrigodbItQA:24+\n", *(a + b for a, b in merges)])
    vocab = {token: id for id, token in enumerate(["<unk>", "<s>", "</s>", *vocab])}
    return Tokenizer(
        BPE(vocab, list(dict.fromkeys(merges)), "<unk>"),
        decoder=SentencePieceModel([], "bpe").decoder(),
        normalizer=Sequence((Prepend("▁"), Replace({"String": " "}, "▁"))),
        added_tokens=[AddedToken(token, vocab[token]) for token in ("<unk>", "<s>", "</s>")],
        post_processor=TemplateProcessing.of("<s> $A", "<s> $A $B", {"<s>": 1}),
        named={"bos_token": "<s>", "eos_token": "</s>"},
    )


def tokens(tokenizer, ids):
    return " ".join(repr(tokenizer.id_to_token(i))[1:-1] for i in ids)


def parts(tokenizer, sequence):
    first = sequence.counts.index(True)
    assert all(sequence.counts[first:])
    return tokens(tokenizer, sequence.ids[:first]), tokens(tokenizer, sequence.ids[first:])


# ---- texts after a text


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        (
            "the answ",
            "er is",
            ("<s> ▁the", "▁answer ▁is </s>"),
        ),  # a token across the boundary belongs to the answer
        ("Q: 2+2\nA:", " 4", (r"<s> ▁ Q : ▁ 2 + 2 \n A :", "▁ 4 </s>")),
        ("Q: 2+2\nA: ", "4", (r"<s> ▁ Q : ▁ 2 + 2 \n A : ▁", "4 </s>")),
        ("the", " answer", ("<s> ▁the", "▁answer </s>")),
        ("the", "re", ("<s> ▁the", "r e </s>")),
    ],
)
def test_a_prompt_and_its_answer_are_one_text(llama, prompt, answer, expected):
    sequence = plain(llama, prompt, answer)
    assert parts(llama, sequence) == expected
    assert sequence.ids == [1, *llama.encode(prompt + answer), 2]


def test_words_behind_a_prefix_are_scored_as_they_stand_there(llama):
    prefix = Prefix("{text} It was", Verbaliser({"pos": " good", "neg": [" bad", "te"]}))
    found = [parts(llama, s) for s in prefix.sequences(llama, {"text": "the"})]
    assert found == [
        ("<s> ▁the ▁It ▁was", "▁good"),
        ("<s> ▁the ▁It ▁was", "▁bad"),
        ("<s> ▁the ▁It ▁was", "t e"),
    ]
    assert prefix.sequence(llama, {"text": "the"}, "neg") == prefix.sequences(llama, {"text": "the"})[1]
    model = tinyplm.create("llama", key=1, dtype="float64", **{**SIZES["llama"], "vocab_size": llama.vocab_size})
    model.tokenizer = llama
    logits = model([llama.prompt("the It was")])[0]["logits"][0, -1]
    log_p = logits - np.log(np.exp(logits).sum())
    expected = [log_p[llama.token_to_id(word)] for word in ("▁good", "▁bad")]
    assert np.allclose(prefix.word_scores(model, [{"text": "the"}])[0, :2], expected, rtol=MODEL)


def test_all_answers_count_the_same_text(llama):
    """One of them merges with the end of the prompt, so the other counts that end too."""
    prompt, answers = llama.continuations("the answ", ["er", " is"])
    assert tokens(llama, prompt) == "<s> ▁the" and [tokens(llama, ids) for ids in answers] == [
        "▁answer",
        "▁answ ▁is",
    ]
    pair = preference(llama, None, {"prompt": "the answ", "chosen": "er", "rejected": " is"})
    assert [parts(llama, side) for side in pair] == [
        ("<s> ▁the", "▁answer </s>"),
        ("<s> ▁the", "▁answ ▁is </s>"),
    ]
    check_pairs([pair], context=None, vocabulary=llama.vocab_size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "prompt, answer",
    [
        ("the answ", "er is"),
        ("Q: 2+2\nA:", " 4"),
        ("It was", " good."),
        ("", "the"),
        ("Hi ", "hello"),
        ("the", " answer"),
        ("It is", "</s>[SEP]"),
    ],
)
def test_every_kind_gives_the_tokens_of_the_whole(tokenizers, kind, prompt, answer):
    tokenizer = tokenizers[kind]
    start, (rest,) = tokenizer.continuations(prompt, [answer])
    assert start + rest == tokenizer.prompt(prompt + answer)
    own = tokenizer.prompt(prompt)
    assert start == own[: len(start)] and (len(start) == len(own) or rest[0] != own[len(start)])  # the longest such prefix
    whole = tokenizer.encode(prompt + answer, add_special_tokens=True)
    assert whole[: len(start + rest)] == start + rest and all(map(tokenizer.is_special, whole[len(start + rest) :]))


def test_training_and_generation_begin_alike(llama, tokenizers):
    """With the tokens that the post-processor puts before a single text, but without the end token."""
    assert (
        prompt_ids(llama, None, "the") == llama.prompt("the") == [1, *llama.encode("the")] == plain(llama, "the", " is").ids[:2]
    )
    assert tokens(tokenizers["WordPiece"], prompt_ids(tokenizers["WordPiece"], None, "It was")) == "[CLS] it was"
    assert prompt_ids(tokenizers["Unigram"], None, "It was") == tokenizers["Unigram"].encode("It was")
    behind = Tokenizer(**llama.parts | {"post_processor": TemplateProcessing.of("$A </s> <s>", "$A $B", {"<s>": 1, "</s>": 2})})
    assert behind.prompt("the") == behind.encode("the") and behind.prompt("") == []


def test_what_cannot_continue(llama, tokenizers):
    unigram = tokenizers["Unigram"]
    with pytest.raises(
        ValueError,
        match="^prompt: expected a text that ends where a token ends, got 'th', whose first token",
    ):
        plain(tokenizers["byte-level BPE"], "th", "e answer")
    for prompt, answer in (("", "the"), ("the", "")):
        with pytest.raises(ValueError, match=f"texts that are not empty, got '{prompt}' and '{answer}'$"):
            plain(llama, prompt, answer)
    with pytest.raises(ValueError, match="texts that are not empty, got 'the' and '  '$"):
        plain(unigram, "the", "  ")  # it adds nothing
    for call, name in (
        (lambda: llama.continuations(5, ["a"]), "prompt"),
        (lambda: llama.continuations("a", [None]), "answers: number 0"),
        (lambda: llama.continue_ids([1], 5), "text"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected a string, got"):
            call()


# ---- a text after ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [("er is", "er ▁is"), (" 4", "▁ 4"), (" good", "▁good"), ("the", "t h e"), ("", "")],
)
def test_ids_stay_and_no_space_is_put_behind_them(llama, text, expected):
    for before in ("the answ", "A:", "24\n"):
        ids = llama.prompt(before)
        new = llama.continue_ids(ids, text)
        assert tokens(llama, new) == expected and llama.decode(ids + new) == llama.decode(ids) + text
    assert llama.continue_ids([], "the") == llama.continue_ids([1], "the") == llama.encode("the")  # the start of a text
    marked = Tokenizer(**llama.parts | {"added_tokens": [*llama.added_tokens, AddedToken("[x]", llama.vocab_size)]})
    inside = [
        *marked.encode("the"),
        marked.token_to_id("[x]"),
    ]  # after a special token: the same as encoding the whole
    whole = marked.encode("the[x]er is", allow_special=True)
    assert inside + marked.continue_ids(inside, "er is") == whole
    assert marked.continue_ids(inside, "er</s>", allow_special=True)[-1] == 2
    assert 2 not in marked.continue_ids(inside, "er</s>") and 2 not in marked.continue_ids(inside[:1], "er</s>")


@pytest.mark.parametrize("kind", ["SentencePiece BPE", "byte-level BPE"])
@given(before=st.text("the answ4é\n.", min_size=1), after=st.text("er is good 4é\n."))
def test_the_text_is_what_is_added(kind, before, after):
    """For tokenizers that keep every character."""
    tokenizer = _KEPT.setdefault(kind, trained(kind))
    ids = tokenizer.prompt(before)
    new = tokenizer.continue_ids(ids, after)
    assert tokenizer.decode(ids + new) == tokenizer.decode(ids) + after
    assert tokenizer.decode(new, after=ids) == after


_KEPT: dict[str, Tokenizer] = {}


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece", "BPE"])
def test_also_where_text_is_tidied(tokenizers, kind):
    tokenizer = tokenizers[kind]
    for before, after in (
        ("It was", " good"),
        ("Hi", " hello world"),
        ("the answ", "er is"),
        ("it is", "the answer"),
    ):
        ids = tokenizer.prompt(before)
        new = tokenizer.continue_ids(ids, after)
        expected = tokenizer.decode(ids) + after.lower()
        if kind == "BPE" and not after.startswith(" "):  # in GPT, the last token ends the word, so "er" is a word of its own
            expected = tokenizer.decode(ids) + (" " if tokenizer.decode(ids).endswith("is") else "") + after
        assert tokenizer.decode(ids + new) == (expected if kind != "Unigram" else tokenizer.decode(ids) + after)


def test_a_prefix_space_of_bytes_is_not_put_behind_ids(tokenizers):
    plain_bytes = tokenizers["byte-level BPE"]
    spaced = Tokenizer(**plain_bytes.parts | {"pre_tokenizer": CutBytes(True), "decoder": ByteLevel(True)})
    assert spaced.encode("er")[0] == plain_bytes.encode(" ")[0]
    ids = spaced.encode("the answ")
    assert spaced.decode(ids + spaced.continue_ids(ids, "er is")) == " the answer is"


def test_a_chat_keeps_the_prompts_ids(llama):
    """The prompt of a chat ends inside a word: the training targets follow the ids that a chat sees, and the text is the same."""
    opened = {"user": "i: ", "assistant": " answ"}
    chat = Template(
        lambda messages, add_generation_prompt=True: (
            "".join(opened[m["role"]] + m["content"] for m in messages) + opened["assistant"] * add_generation_prompt
        ),
        (),
    )
    talk = [{"role": "user", "content": "the"}, {"role": "assistant", "content": "er is"}]
    sequence = conversation(llama, chat, talk)
    seen = encode(llama, chat, talk[:1])
    assert sequence.ids[: len(seen)] == seen and tokens(llama, seen) == "▁i : ▁the ▁answ"
    assert parts(llama, sequence)[1] == "er ▁is </s>"


# ---- ids to text


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_of_an_answer_keeps_its_space(tokenizers, kind):
    """The same text when decoded whole, by a reward rule, by rollouts, and token by token."""
    tokenizer = tokenizers[kind]
    prompt, (answer,) = tokenizer.continuations("It was", [" good"])
    end = tokenizer.token_to_id("</s>") or 0
    assert tokenizer.decode(answer, after=prompt) == " good"
    seen = []
    text_reward(lambda *texts: seen.append(texts) or 1.0, tokenizer, [end])([prompt] * 2, [[*answer, end], answer])
    asked = tokenizer.decode(prompt, skip_special=True)
    assert seen == [(asked, " good", True), (asked, " good", False)]
    assert Rollouts([prompt], [[*answer, end]], [True], 1).texts(tokenizer, [end]) == [" good"]
    stream = tokenizer.stream(after=prompt)
    assert "".join(map(stream.push, answer)) + stream.finish() == " good"
    special = [i for i in range(tokenizer.vocab_size) if tokenizer.is_special(i)][:1]
    assert tokenizer.decode([*answer, *special], skip_special=True, after=prompt) == " good"


# ---- words in a gap


@pytest.mark.parametrize(
    "template, word, expected",
    [
        ("{text} It was [MASK].", "good", "Ġgood"),
        ("{text} It was [MASK].", " good", "Ġgood"),
        ("({text})([MASK])", "good", "good"),
        ("[MASK] it is", "good", "good"),
        ("[MASK] it is", " good", "Ġgood"),
    ],
)
def test_a_word_in_a_gap_has_the_space_before_it(template, word, expected):
    """RoBERTa's mask absorbs the space before it, so the word that replaces it has that space."""
    merges = [("g", "o"), ("go", "o"), ("goo", "d"), ("Ġ", "good"), (")", ")")]
    vocab = dict.fromkeys([*"goodĠbad()xItwas.", *(a + b for a, b in merges)])
    vocab = {token: id for id, token in enumerate(vocab)}
    tokenizer = Tokenizer(BPE(vocab, merges), pre_tokenizer=CutBytes(False), decoder=ByteLevel(False))
    cloze = Cloze(template, Verbaliser({"pos": word, "neg": "x"}))
    assert tokenizer.id_to_token(cloze._single(tokenizer, word)) == expected
    with pytest.raises(ValueError, match="words of one token, which fit the gap, got 'bad' of [34]"):
        cloze._single(tokenizer, "bad")
    with pytest.raises(ValueError, match=r"^verbaliser: expected words that do not merge .* got '\)'"):
        Cloze("(x)[MASK]", cloze.verbaliser)._single(tokenizer, ")")
