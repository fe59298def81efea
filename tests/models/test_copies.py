"""copy.deepcopy and pickle of models, caches and sentence encoders."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from tests.support import families
from tests.support.small_models import IDS, MODELS, each_model, inputs_of
from tests.test_sentence_encoder import encoder as sentence_encoder
from tinyplm.core import flatten


def pickled(value):
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@each_model
def test_copies_compute_the_same_and_share_no_array(name, copied):
    model, inputs = MODELS[name][0], inputs_of(name)
    for original in [model, model.for_decoding()] if name in families.FAMILIES else [model]:
        twin = copied(original)
        assert type(twin) is type(original) and twin.family is original.family and twin.config == original.config
        expected, found = original(**inputs, grad=False)[0], twin(**inputs, grad=False)[0]
        assert all(np.array_equal(found[output], a) for output, a in expected.items())
        leaves, others = flatten(original.params), flatten(twin.params)
        assert leaves.keys() == others.keys() and not any(np.shares_memory(a, others[path]) for path, a in leaves.items())


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_of_caches_sentence_encoders_and_models_with_a_tokenizer(copied, trained):
    model = MODELS["gpt2"][0]._with(tokenizer=trained)
    cache = model(IDS, cache=model.empty_cache(2))[0]["cache"]
    twin = copied(cache)
    after, _ = model(IDS, cache=cache, grad=False)
    again, _ = copied(model)(IDS, cache=twin, grad=False)  # consumed independently
    assert np.array_equal(after["logits"], again["logits"])
    with pytest.raises(ValueError, match="consumed"):
        model(IDS, cache=copied(cache))
    assert copied(model).tokenizer.encode("the dog") == trained.encode("the dog")
    made = sentence_encoder()
    assert np.array_equal(copied(made).encode(["the dog"]), made.encode(["the dog"]))
