# ruff: noqa: E402 - imports follow importorskip
"""What is specific to XLNet, against transformers in float64: permutations and targets, memory, distances, its config and files.

Every head with padding, token types and odd shapes is in test_encoders.py; tolerance: see pair.py.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


import tinyplm
from tests.interop.encoder_pair import compare, compare_gradients, inputs_for, pair, peer
from tests.interop.pair import as_torch, assert_same, float64
from tinyplm.families import xlnet
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import to_dict
from tinyplm.objectives import permutation_sample
from tinyplm.random import fold, key

V = 41  # the vocabulary of tests/interop/encoder_pair.py


def permuted(inputs, M=3, seed=3, nobody=False):
    """The inputs with a random prediction order for every sample, over real tokens only, and its last M tokens as targets.

    Every target sees the first real token in the order, which is not a target: where nothing is visible, transformers averages
    over everything, including the target's own token, and ours gives zeros.  nobody: one row of target_mapping is empty.
    """
    rng = np.random.default_rng(seed)
    B, T = inputs["input_ids"].shape
    real = inputs.get("attention_mask", np.ones((B, T))) == 1
    rank = np.array([[*rng.permutation(T)] for _ in range(B)]) + T * ~real  # padding comes last
    order = np.argsort(rank, axis=1)
    target_mapping = np.zeros((B, M, T))
    for b in range(B):
        places = order[b, 1 : real[b].sum()][-M:]
        target_mapping[b, rng.permutation(M)[: len(places)], places] = 1
    if nobody:
        target_mapping[:, 1] = 0
    perm_mask = (rank[:, :, None] <= rank[:, None, :]).astype(np.float64)
    return {**inputs, "perm_mask": perm_mask, "target_mapping": target_mapping}


@pytest.mark.parametrize("types", [True, False])
@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_permutation_language_model(tmp_path, side, types):
    theirs, ours = pair("xlnet", "permutation_lm", tmp_path)
    compare(theirs, ours, permuted(inputs_for("xlnet", "permutation_lm", side=side, types=types), nobody=side == "none"))


@pytest.mark.parametrize("shape", [{"B": 1}, {"B": 4, "T": 3}, {"T": 12}])
def test_permutations_of_odd_shapes(tmp_path, shape):
    theirs, ours = pair("xlnet", "permutation_lm", tmp_path, d_model=30, n_head=3, n_layer=3)
    compare(theirs, ours, permuted(inputs_for("xlnet", "permutation_lm", side="none", **shape), M=1))


@pytest.mark.parametrize("task", [task for task in xlnet.TASKS if task not in ("permutation_lm", "multiple_choice")])
def test_other_heads_on_the_query_stream(tmp_path, task):
    """This is allowed: their hidden states are then those of the targets."""
    theirs, ours = pair("xlnet", task, tmp_path)
    inputs = permuted(inputs_for("xlnet", task, side="none"))
    outputs, _ = ours(**inputs)
    assert outputs["hidden"].shape == (3, 3, 32)
    compare(theirs, ours, inputs)


def test_targets_are_in_the_order_of_target_mapping_and_not_shifted(tmp_path):
    """transformers' labels are our targets unchanged; -100 where a row of target_mapping is empty."""
    theirs, ours = pair("xlnet", "permutation_lm", tmp_path)
    inputs = permuted(inputs_for("xlnet", "permutation_lm", side="left"))
    places, real = inputs["target_mapping"].argmax(axis=-1), inputs["target_mapping"].any(axis=-1)
    targets = np.where(real, np.take_along_axis(inputs["input_ids"], places, axis=1), -100)
    with float64():
        expected = theirs(**as_torch(**inputs), labels=torch.from_numpy(targets)).loss
    expected.backward()
    loss, back = ours.loss(targets={"logits": targets}, **ours.inputs(**inputs))
    assert_same("loss", loss, expected.detach().numpy())
    compare_gradients(ours, back(1.0), theirs)


def test_the_objective_makes_what_both_models_read(tmp_path):
    """Batches of tinyplm.objectives.permutation: the same loss and gradients."""
    theirs, ours = pair("xlnet", "permutation_lm", tmp_path)
    ids = np.random.default_rng(0).integers(5, V, (3, 12))
    special = np.zeros(12, dtype=np.int64)
    samples = [permutation_sample(row, special, predictions=4, K=3, key=fold(key(0), i)) for i, row in enumerate(ids)]
    batch = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    targets = batch.pop("targets")
    inputs = {"input_ids": ids, **{name: a.astype(np.float64) for name, a in batch.items()}}
    with float64():
        expected = theirs(**as_torch(**inputs), labels=torch.from_numpy(targets)).loss
    expected.backward()
    loss, back = ours.loss(targets={"logits": targets}, **ours.inputs(ids, **batch))  # integers work too
    assert_same("loss", loss, expected.detach().numpy())
    compare_gradients(ours, back(1.0), theirs, exempt=("seg_embed", "r_s_bias"))


# ------------------------------------------------------------------------------------------------------- memory, distances


MEMORIES = {
    "all is kept": {"mem_len": None},
    "the last 5": {"mem_len": 5},
    "the last 9, of two segments": {"mem_len": 9},
    "the first 4 of a segment": {"mem_len": None, "reuse_len": 4},
    "the first 4, the last 6": {"mem_len": 6, "reuse_len": 4},
    "zeros mean all": {"mem_len": 0, "reuse_len": 0},
}


@pytest.mark.parametrize("settings", MEMORIES)
def test_memory_over_three_segments(tmp_path, settings):
    """Each segment's states and memory, and the gradients of the last one, with targets, types and padding."""
    theirs, ours = pair("xlnet", "body", tmp_path, **MEMORIES[settings])
    mems = their_mems = None
    for segment in range(3):
        inputs = inputs_for("xlnet", "body", seed=segment, side="left" if segment == 2 else "none")
        inputs = permuted(inputs) if segment == 2 else inputs
        with float64():
            output = theirs(**as_torch(**inputs), mems=their_mems, use_mems=True)
        checked = ours.inputs(**inputs, mems=mems)
        (hidden, mems), back = xlnet.body_with_memory(ours.params["body"], config=ours.config, **checked)
        assert_same("hidden", hidden, output.last_hidden_state.detach().numpy())
        assert mems.shape[:2] == (3, 2) and len(output.mems) == 2
        for i, theirs_of_layer in enumerate(output.mems):
            assert_same(f"the memory of layer {i}", mems[:, i], theirs_of_layer.numpy().swapaxes(0, 1))
        their_mems = output.mems
    cotangent = np.random.default_rng(0).normal(size=hidden.shape)
    output.last_hidden_state.backward(torch.from_numpy(cotangent))
    dp, _ = back(cotangent)
    compare_gradients(ours, {"body": dp}, theirs)


@pytest.mark.parametrize("T", [1, 4])
def test_memory_through_the_model(tmp_path, T):
    """As an ordinary model input, also in front of a single token."""
    theirs, ours = pair("xlnet", "permutation_lm", tmp_path)
    rng = np.random.default_rng(T)
    inputs, mems = inputs_for("xlnet", "permutation_lm", T=T, side="none"), rng.normal(size=(3, 2, 5, 32))
    with float64():
        output = theirs(**as_torch(**inputs), mems=[torch.from_numpy(m.copy()) for m in mems.transpose(1, 2, 0, 3)])
    outputs, backward = ours(**inputs, mems=mems)
    assert_same("logits", outputs["logits"], output.logits.detach().numpy())
    cotangent = rng.normal(size=outputs["logits"].shape)
    output.logits.backward(torch.from_numpy(cotangent))
    compare_gradients(ours, backward({"logits": cotangent}), theirs, exempt=("mask_emb",))


@pytest.mark.parametrize(
    "changes",
    [{"clamp_len": 2}, {"clamp_len": 1, "d_model": 30, "n_head": 5}, {"layer_norm_eps": 0.03}, {"d_inner": 7, "n_layer": 1},
     {"d_model": 6, "n_head": 6}, *({"ff_activation": name} for name in ("relu", "silu", "gelu_new"))],
    ids=str,
)  # fmt: skip
def test_settings_of_the_config(tmp_path, changes):
    theirs, ours = pair("xlnet", "permutation_lm", tmp_path, **changes)
    compare(theirs, ours, inputs_for("xlnet", "permutation_lm", side="left"))
    compare(theirs, ours, permuted(inputs_for("xlnet", "permutation_lm")))


@pytest.mark.parametrize("same_length", [False, True])
def test_attention_to_the_past_alone(tmp_path, same_length):
    """attn_type "uni": Transformer-XL.  One sample, since transformers adds its masks in place, where only one fits."""
    theirs, ours = pair("xlnet", "body", tmp_path, attn_type="uni", same_length=same_length)
    inputs = inputs_for("xlnet", "body", B=1, side="none")
    mems = np.random.default_rng(0).normal(size=(1, 2, 3, 32))
    for given in (inputs, permuted(inputs)):
        with float64():
            output = theirs(**as_torch(**given), mems=[torch.from_numpy(m.copy()) for m in mems.transpose(1, 2, 0, 3)])
        outputs, backward = ours(**given, mems=mems)
        assert_same("hidden", outputs["hidden"], output.last_hidden_state.detach().numpy())
        cotangent = np.random.default_rng(1).normal(size=outputs["hidden"].shape)
        output.last_hidden_state.backward(torch.from_numpy(cotangent))
        exempt = () if "target_mapping" in given else ("mask_emb",)
        compare_gradients(ours, backward({"hidden": cotangent}), theirs, exempt)


# ------------------------------------------------------------------------------------------------------------ inputs


def test_input_mask_is_the_attention_mask_turned_over(tmp_path):
    theirs, ours = pair("xlnet", "token_classification", tmp_path)
    inputs = inputs_for("xlnet", "token_classification", side="left")
    mask = inputs.pop("attention_mask")
    turned = {**inputs, "input_mask": (1 - mask).astype(np.float64)}
    outputs, _ = ours(**turned)
    assert np.array_equal(outputs["logits"], ours(**inputs, attention_mask=mask)[0]["logits"])
    with float64():
        expected = theirs(**as_torch(**turned)).logits.detach().numpy()
    assert_same("logits", outputs["logits"][mask == 1], expected[mask == 1])


def test_embeddings_as_inputs(tmp_path):
    theirs, ours = pair("xlnet", "body", tmp_path)
    rng = np.random.default_rng(0)
    embeds = rng.normal(size=(2, 5, 32))
    leaf = torch.from_numpy(embeds).requires_grad_()
    with float64():
        output = theirs(inputs_embeds=leaf).last_hidden_state
    outputs, backward = ours(inputs_embeds=embeds)
    assert_same("hidden", outputs["hidden"], output.detach().numpy())
    cotangent = rng.normal(size=output.shape)
    output.backward(torch.from_numpy(cotangent))
    dparams, dembeds = backward({"hidden": cotangent})
    assert_same("the gradient of inputs_embeds", dembeds, leaf.grad.numpy())
    compare_gradients(ours, dparams, theirs, exempt=("mask_emb", "word_embedding", "seg_embed", "r_s_bias"))


@pytest.mark.parametrize(("name", "value"), [("type", "first"), ("activation", "relu"), ("activation", "")])
@pytest.mark.parametrize("task", ["sequence_classification", "multiple_choice"])
def test_summaries(tmp_path, task, name, value):
    theirs, ours = pair("xlnet", task, tmp_path, **{f"summary_{name}": value})
    compare(theirs, ours, inputs_for("xlnet", task, side="none"))


def test_dropout_is_off_without_a_key(tmp_path):
    theirs, ours = pair("xlnet", "sequence_classification", tmp_path)
    inputs = inputs_for("xlnet", "sequence_classification", side="none")
    assert (ours.config.dropout, ours.config.summary_last_dropout) == (0.1, 0.1)
    with float64():
        expected = theirs(**as_torch(**inputs)).logits.detach().numpy()
    assert_same("logits", ours(**inputs)[0]["logits"], expected)
    assert np.abs(ours(**inputs, key=1)[0]["logits"] - expected).max() > 1e-2
    with pytest.raises(AssertionError, match="differs"):  # theirs also has it in training mode
        assert_same("logits", theirs.train()(**as_torch(**inputs)).logits.detach().numpy(), expected)


# ------------------------------------------------------------------------------------------------------------- config, files


def test_the_defaults_are_those_of_transformers():
    ours, theirs = to_dict(xlnet.Config()), transformers.XLNetConfig().to_dict()
    assert {name: theirs[name] for name in ours} == ours


@pytest.mark.parametrize("size", xlnet.SIZES)
@pytest.mark.parametrize("task", xlnet.TASKS)
def test_parameter_counts_are_those_of_transformers(size, task):
    config = xlnet.SIZES[size]
    with torch.device("meta"):
        theirs = getattr(transformers, xlnet.TASKS[task].architecture)(transformers.XLNetConfig(**to_dict(config)))
    shapes = xlnet.shapes(config, task)
    assert count_parameters(shapes) == sum(p.numel() for p in theirs.parameters())


def test_a_released_file_with_its_tied_head_and_old_config_keys(tmp_path):
    """The released files store the output matrix twice, and their config has untie_r."""
    theirs, ours = pair("xlnet", "permutation_lm", tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "untie_r": True}))
    tensors = {name: t.detach().clone().contiguous() for name, t in theirs.state_dict().items()}
    assert torch.equal(tensors["lm_loss.weight"], tensors["transformer.word_embedding.weight"])
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = tinyplm.load(tmp_path)
    assert again.config.untie_r is True and np.array_equal(again.params["body"]["tokens"], ours.params["body"]["tokens"])
    classifier = tinyplm.load(tmp_path, task="sequence_classification", labels=["a", "b", "c"])
    assert set(classifier.fresh) == {f"head.{part}.{n}" for part in ("pooler", "classifier") for n in "Wb"}
    assert classifier(np.ones((2, 3), dtype=int))[0]["logits"].shape == (2, 3)


def test_the_beam_search_head_is_refused_by_name(tmp_path):
    config = peer("xlnet", "body").config
    transformers.XLNetForQuestionAnswering(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="architecture: expected one of XLNet.*, got 'XLNetForQuestionAnswering'"):
        tinyplm.load(tmp_path)


def test_where_ours_differs_a_target_that_sees_nothing_and_two_targets_of_one_token(tmp_path):
    """transformers averages the values of all keys, including the target's own token, and adds up the queries of targets at the
    same position.  Ours gives zeros for the former, and computes each of the latter separately."""
    theirs, ours = pair("xlnet", "body", tmp_path)
    ids, perm_mask = np.array([[7, 8, 9]]), np.ones((1, 3, 3))
    one, two = np.zeros((1, 1, 3)), np.zeros((1, 2, 3))
    one[..., 1] = two[..., 1] = 1

    def run(mapping, perm_mask, ids=ids):
        given = {"input_ids": ids, "perm_mask": perm_mask, "target_mapping": mapping}
        with float64():
            return ours(**given)[0]["hidden"], theirs(**as_torch(**given)).last_hidden_state.detach().numpy()

    other = np.array([[7, 18, 9]])  # another token at the target's position
    (ours_1, theirs_1), (ours_2, theirs_2) = run(one, perm_mask), run(one, perm_mask, other)
    assert np.array_equal(ours_1, ours_2) and np.abs(theirs_1 - theirs_2).max() > 1e-3
    free = perm_mask * 0
    ours_one, theirs_one = run(one, free)
    ours_two, theirs_two = run(two, free)
    assert_same("one target", ours_one, theirs_one)
    assert_same("each of two targets", ours_two, np.concatenate([ours_one, ours_one], axis=1))
    assert np.abs(theirs_two - theirs_one).max() > 1e-3
