# ruff: noqa: E402 - imports follow importorskip
"""Objectives against transformers' collators and XLNet, losses and normalisation against torch.

The collators draw with NumPy or from their own state.  Their draws are repeated here, or read off their result, and passed to
our rule, so the arrays must be equal.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from tests.laws import relative_error
from tinyplm.layers.pooling import l2_normalise
from tinyplm.losses.contrastive import info_nce, symmetric_info_nce
from tinyplm.losses.regression import binary_cross_entropy, mean_squared_error
from tinyplm.objectives import Layout, MaskedPairs, Masking, continuations, corrupt, permutation_sample, whole_words, word_units
from tinyplm.objectives.permutation import permutation_mask, ranks_of
from tinyplm.random import fold, key

PIECES = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "un", "##break", "##able", "dog", "##s", "the", "run", "##ning", "a"]
TEXTS = ["the unbreakable dogs running", "a dog", "dogs dogs unbreak the a a running", "un the"]


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {piece: i for i, piece in enumerate(PIECES)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    inner.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "mask", "unk")}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def _features(tokenizer, **more):
    texts = TEXTS * 20
    return [tokenizer(text, return_special_tokens_mask=True, **more) for text in texts]


def _padded(features, name, fill):
    length = max(len(f["input_ids"]) for f in features)
    return np.array([f[name] + [fill] * (length - len(f[name])) for f in features])


def test_masking_equals_the_collators_for_the_same_draws(tokenizer):
    features = _features(tokenizer)
    collator = transformers.DataCollatorForLanguageModeling(
        tokenizer, mlm_probability=0.4, mask_replace_prob=0.7, random_replace_prob=0.2, return_tensors="np", seed=11
    )
    theirs = collator(features)
    ids, special = _padded(features, "input_ids", 0), _padded(features, "special_tokens_mask", 1)

    rng = np.random.default_rng(11)
    selected = rng.binomial(1, np.where(special, 0, 0.4)).astype(bool)
    replaced = rng.binomial(1, 0.7, size=ids.shape).astype(bool)
    random = rng.binomial(1, 0.2 / (1 - 0.7), size=ids.shape).astype(bool)
    random_ids = np.zeros_like(ids)
    drawn = selected & ~replaced & random
    random_ids[drawn] = rng.integers(0, len(tokenizer), size=drawn.sum())
    draws = np.where(replaced, 0.3, np.where(random, 0.8, 0.95))  # one draw for both coins
    inputs, targets = corrupt(ids, selected, draws, replacement=3, random_ids=random_ids, shares=(0.7, 0.2, 0.1))
    assert np.array_equal(inputs, theirs["input_ids"]) and np.array_equal(targets, theirs["labels"])
    for case in (inputs == 3, drawn & (inputs != ids), selected & (inputs == ids)):
        assert case.any()


def test_whole_words_are_the_collators(tokenizer):
    """On texts without punctuation: the collator also joins tokens with no space between them."""
    features = _features(tokenizer, return_offsets_mapping=True)
    word_ids = [f.word_ids() for f in features]
    length = max(map(len, word_ids))
    features = [{**f, "offset_mapping": f["offset_mapping"] + [(0, 0)] * (length - len(f["input_ids"]))} for f in features]
    ids, special = _padded(features, "input_ids", 0), _padded(features, "special_tokens_mask", 1)
    batch = [{"input_ids": i.tolist(), "special_tokens_mask": s.tolist(), "offset_mapping": f["offset_mapping"]}
             for i, s, f in zip(ids, special, features)]  # fmt: skip
    collator = transformers.DataCollatorForLanguageModeling(
        tokenizer,
        whole_word_mask=True,
        mlm_probability=0.4,
        mask_replace_prob=1,
        random_replace_prob=0,
        return_tensors="np",
        seed=3,
    )
    theirs = collator(batch)

    continues = continuations(PIECES, inside="##")
    units = [whole_words(continues)(i, s == 0) for i, s in zip(ids, special)]
    assert units == [word_units(w + [None] * (length - len(w)), s == 0) for w, s in zip(word_ids, special)]
    first = np.zeros(ids.shape, bool)
    for row, words in zip(first, units):
        row[[word[0] for word in words]] = True
    coins = np.random.default_rng(3).binomial(1, np.where(first, 0.4, 0)).astype(bool)
    selected = np.zeros(ids.shape, bool)
    for row, coin, words in zip(selected, coins, units):
        row[[t for word in words if coin[word[0]] for t in word]] = True
    inputs, targets = corrupt(ids, selected, np.zeros(ids.shape), replacement=3, random_ids=ids, shares=(1, 0, 0))
    assert np.array_equal(inputs, theirs["input_ids"]) and np.array_equal(targets, theirs["labels"])
    assert (selected & ~first).any() and (first & ~selected).any()


def test_permutation_masks_are_the_collators(tokenizer):
    """Texts without special tokens: in the collator's masks these may see predicted tokens; here they are ordinary context.

    The order of the predicted tokens is read off the collator's mask: how many of them each one sees.
    """
    ids = np.random.default_rng(0).integers(5, len(PIECES), (8, 60))
    collator = transformers.DataCollatorForPermutationLanguageModeling(tokenizer, return_tensors="np")
    np.random.seed(0)
    theirs = collator([{"input_ids": row.tolist()} for row in ids])
    for labels, mask in zip(theirs["labels"], theirs["perm_mask"]):
        predicted = labels != -100
        seen = ((mask == 0) & predicted).sum(axis=1)
        places = np.flatnonzero(predicted)
        order = [*np.flatnonzero(~predicted), *places[np.argsort(seen[places])]]
        assert np.array_equal(permutation_mask(ranks_of(order, predicted)), mask)
        assert 1 < len(places) < 60


@pytest.mark.parametrize("reuse", [0, 5])
def test_xlnet_predicts_without_seeing_the_answer(reuse):
    """transformers' two-stream model reads our masks: a prediction depends on exactly the tokens before it in the order."""
    torch.manual_seed(0)
    config = transformers.XLNetConfig(vocab_size=30, d_model=16, n_layer=3, n_head=2, d_inner=24, dropout=0.0)
    model = transformers.XLNetLMHeadModel(config).eval()
    rng = np.random.default_rng(1)
    T, M = 12, 4
    for n in range(3):
        ids = rng.integers(5, 30, T)
        sample = permutation_sample(ids, np.zeros(T), predictions=M, key=fold(key(0), n), K=2, longest=3, reuse=reuse)
        masks = {name: torch.tensor(sample[name][None], dtype=torch.float32) for name in ("perm_mask", "target_mapping")}

        def logits(ids, masks=masks):
            with torch.no_grad():
                return model(torch.tensor(ids[None]), **masks).logits[0].numpy()

        before = logits(ids)
        assert before.shape == (M, 30)
        places = sample["target_mapping"].argmax(axis=1)[sample["targets"] != -100]
        assert np.array_equal(ids[places], sample["targets"][: len(places)])
        for j in range(T):
            changed = ids.copy()
            changed[j] = 5 + (changed[j] - 4) % 25
            after = logits(changed)
            for m, i in enumerate(places):
                sees = sample["perm_mask"][i, j] == 0
                assert np.array_equal(after[m], before[m]) != sees, (i, j)


def test_batches_are_what_bert_wants():
    """A step of transformers' BertForPreTraining on our arrays: its loss is the sum of our two targets' cross-entropies."""
    rng = np.random.default_rng(0)
    documents = [[rng.integers(5, 40, 6).tolist() for _ in range(9)] for _ in range(4)]
    layout = Layout.bert(cls_id=1, sep_id=2, pad_id=0)
    data = MaskedPairs(documents, 24, layout=layout, masking=Masking(3, 40), seed=0)
    inputs, targets = ({name: torch.tensor(a) for name, a in part.items()} for part in data.batch(0, 16))
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(0)
    model = transformers.BertForPreTraining(config).eval()
    with torch.no_grad():
        out = model(**inputs, labels=targets["logits"], next_sentence_label=targets["pair_logits"])
    words = torch.nn.functional.cross_entropy(out.prediction_logits.reshape(-1, 40), targets["logits"].reshape(-1))
    pairs = torch.nn.functional.cross_entropy(out.seq_relationship_logits, targets["pair_logits"])
    assert float(out.loss) == pytest.approx(float(words + pairs), rel=1e-6)  # float32


# ---- losses


def _compare(ours, theirs, arrays, tolerance=1e-12):
    """Value and gradients in float64; both compute the same sums in a different order."""
    value, back = ours(*arrays)
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = theirs(*tensors)
    dy = np.random.default_rng(9).normal(size=tuple(expected.shape))
    expected.backward(torch.tensor(dy))
    grads = back(dy)
    grads = [grads] if len(arrays) == 1 else list(grads)
    assert relative_error([np.asarray(value)], [expected.detach().numpy()]) < tolerance
    assert relative_error(grads, [t.grad.numpy() for t in tensors]) < tolerance


def test_losses_are_those_of_torch():
    F = torch.nn.functional
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 5)), rng.normal(size=(9, 5))
    targets = np.array([3, 0, -100, 8, 2, 1])
    _compare(
        lambda a, b: info_nce(a, b, targets=targets, temperature=0.3),
        lambda a, b: F.cross_entropy(a @ b.T / 0.3, torch.tensor(targets)),
        [a, b],
    )
    own = torch.arange(6)
    _compare(
        lambda a, b: symmetric_info_nce(a, b, temperature=0.3),
        lambda a, b: (F.cross_entropy(a @ b.T / 0.3, own) + F.cross_entropy(b @ a.T / 0.3, own)) / 2,
        [a, b[:6]],
    )
    _compare(l2_normalise, lambda x: F.normalize(x, dim=-1), [a])
    numbers, labels = rng.normal(size=(6, 5)), rng.integers(0, 2, (6, 5)).astype(float)
    _compare(lambda y: mean_squared_error(y, targets=numbers), lambda y: F.mse_loss(y, torch.tensor(numbers)), [a])
    _compare(
        lambda z: binary_cross_entropy(z, targets=labels),
        lambda z: F.binary_cross_entropy_with_logits(z, torch.tensor(labels)),
        [a * 20],
    )
