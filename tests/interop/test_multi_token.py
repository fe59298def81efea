# ruff: noqa: E402 - imports follow importorskip
"""DeepSeek-V3's modules for later tokens against transformers' MtpModel: states, losses, all gradients, and files both ways.

transformers drafts with it, one token a module, and has no loss of it that runs: here each module gets the tokens of a text, as
in training, through `forward_layer`, and the loss is torch's.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file
from transformers.modeling_layers import MtpModel

import tinyplm
from tests.interop.pair import (
    EAGER,
    as_in_files,
    assert_bit_equal,
    assert_same,
    assert_same_gradients,
    exact_logits,
    float64,
    named_gradients,
    our_tensors,
    peer,
    tensors_of,
)
from tests.interop.test_causal_files import settings_in
from tinyplm.hub import folders as hub

NAMES = {"enorm": "enorm", "hnorm": "hnorm", "eh_proj": "eh_proj", "post_norm": "shared_head.norm"}
SHARED = {"embed_tokens.weight": "model.embed_tokens.weight", "shared_head.head.weight": "lm_head.weight"}
CHANGES = {
    "plain": {}, "tied, raw weights": {"tie_word_embeddings": True, "norm_topk_prob": False, "q_lora_rank": None},
    "odd": {"hidden_size": 30, "num_attention_heads": 3, "v_head_dim": 7, "attention_bias": True, "rope_interleave": False},
    "all layers dense": {"first_k_dense_replace": 2},
}  # fmt: skip


def with_modules(n, **changes):
    """transformers' model and its n modules, in float64, every parameter random."""
    theirs = peer("deepseek_v3", num_nextn_predict_layers=n, **changes)
    with float64():
        modules = MtpModel(theirs, n).double().eval()
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for a in (*modules.layers.parameters(), *modules.layers.buffers()):
            a.copy_(torch.from_numpy(rng.normal(a.ndim == 1, 0.3, a.shape)))
    return theirs, modules


def module_tensors(theirs, tensors):
    """{name in MtpModel.layers: tensor} by the names that files have: those of layers after the last."""
    named = {}
    for name, tensor in tensors.items():
        number, rest = name.split(".", 1)
        first, last = rest.split(".", 1)
        hub = f"model.layers.{theirs.config.num_hidden_layers + int(number)}"
        named[f"{hub}.{last}" if first == "mtp_block" else f"{hub}.{NAMES[first]}.{last}"] = tensor
    return as_in_files(theirs, named)


def published(theirs, modules, folder, *, shared=True):
    """A folder as DeepSeek's: the modules' tensors beside the model's, with copies of its table and head."""
    theirs.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors |= module_tensors(theirs, {name: t.detach() for name, t in modules.layers.state_dict().items()})
    for k in range(len(modules.layers) if shared else 0):
        for copy, name in SHARED.items():
            original = tensors.get(name, tensors["model.embed_tokens.weight"])
            tensors[f"model.layers.{theirs.config.num_hidden_layers + k}.{copy}"] = original.clone()
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return tensors


def their_states(theirs, modules, ids):
    """The logits of the model, and the states of each module, for the tokens of a text."""
    T = ids.shape[1]
    ids, places = torch.from_numpy(ids), torch.arange(T)[None]
    with float64():
        output = theirs(ids, output_hidden_states=True)
        h, later = output.hidden_states[-1], []
        for k in range(1, len(modules.layers) + 1):
            if k < T:
                h = modules.forward_layer(k - 1, h[:, : T - k], places[:, k:], None, input_ids=ids[:, k:])
                later.append(h)
    return output.logits, later


def all_gradients(theirs, modules):
    own = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in modules.layers.named_parameters()}
    modules.layers.zero_grad()
    return named_gradients(theirs) | {name: a.numpy() for name, a in module_tensors(theirs, own).items()}


@pytest.mark.parametrize("T", [4, 7])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("changes", CHANGES)
def test_states_loss_and_gradients(tmp_path, changes, n, T):
    theirs, modules = with_modules(n, **CHANGES[changes])
    published(theirs, modules, tmp_path)
    ours = tinyplm.load(tmp_path, task="multi_token_lm")
    assert ours.dtype == np.float64 and len(ours.params["body"]["multi_token"]) == n
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 41, (3, T))
    outputs, backward = ours(ids)
    logits, later = their_states(theirs, modules, ids)
    assert_same("logits", outputs["logits"], logits.detach().numpy())
    W, _ = ours.family.output_matrix(ours.params, config=ours.config)
    with float64():
        their_logits = [modules.shared_head(h) for h in later]
    assert len(later) == outputs["later_hidden"].shape[2] == n
    cotangents = {name: np.zeros(outputs[name].shape) for name in ("logits", "later_hidden")}
    cotangents["logits"][:] = rng.normal(size=logits.shape)
    scalar = (logits * torch.from_numpy(cotangents["logits"])).sum()
    for k, h in enumerate(later):
        found = outputs["later_hidden"][:, : T - k - 1, k]
        assert_same(f"module {k}", found, h.detach().numpy())
        assert_same(f"logits of module {k}", found @ W, their_logits[k].detach().numpy())
        c = cotangents["later_hidden"][:, : T - k - 1, k]
        c[:] = rng.normal(size=c.shape)
        scalar = scalar + (h * torch.from_numpy(c)).sum()
    scalar.backward(retain_graph=True)
    assert_same_gradients(hub.gradients_by_hub_name(ours, backward(cotangents)), all_gradients(theirs, modules))

    targets = rng.integers(0, 41, (3, T))
    targets[0, 1] = -100

    def cross_entropy(z, shift):
        t = torch.from_numpy(targets[:, shift:]).reshape(-1)
        return torch.nn.functional.cross_entropy(z.reshape(-1, 41), t, reduction="sum") / (targets >= 0).sum()

    expected = cross_entropy(logits, 0) + 0.3 / n * sum(cross_entropy(z, k) for k, z in enumerate(their_logits, 1))
    expected.backward()
    loss, loss_back = ours.loss(input_ids=ids, targets={"logits": targets}, multi_token=0.3, chunk=5)
    assert_same("loss", loss, expected.detach().numpy())
    assert_same_gradients(hub.gradients_by_hub_name(ours, loss_back(1.0)), all_gradients(theirs, modules))


# --------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("changes", ["plain", "tied, raw weights"])
def test_published_files(tmp_path, changes, n, shared):
    """With the modules, and by default without: then they are not read, and not written."""
    theirs, modules = with_modules(n, **CHANGES[changes])
    tensors = published(theirs, modules, tmp_path / "published", shared=shared)
    ours = tinyplm.load(tmp_path / "published", task="multi_token_lm")
    repeated = {name for name in tensors if name.endswith((*SHARED,)) and ".layers." in name}
    assert len(repeated) == 2 * n * shared
    own = {name: t for name, t in tensors.items() if name not in repeated}
    assert_bit_equal(our_tensors(ours), own)
    tinyplm.save(ours, tmp_path / "ours")
    assert_bit_equal(load_file(tmp_path / "ours" / "model.safetensors"), own)
    assert settings_in(tmp_path / "ours") == settings_in(tmp_path / "published")
    again = tinyplm.load(tmp_path / "ours", task="multi_token_lm")
    assert_bit_equal(our_tensors(again), own)

    plain = tinyplm.load(tmp_path / "published")
    assert plain.task == "causal_lm"
    assert_bit_equal(our_tensors(plain), tensors_of(theirs))
    tinyplm.save(plain, tmp_path / "plain")
    assert_bit_equal(load_file(tmp_path / "plain" / "model.safetensors"), tensors_of(theirs))
    ids = np.random.default_rng(0).integers(0, 41, (2, 5))
    assert np.array_equal(plain(ids)[0]["logits"], ours(ids)[0]["logits"])


def test_transformers_reads_our_files(tmp_path):
    """61 layers, as published: its pattern of the tensors that a model skips and MtpModel reads has this number."""
    changes = {"num_hidden_layers": 61, "first_k_dense_replace": 60}
    theirs, modules = with_modules(1, **changes)
    published(theirs, modules, tmp_path / "published")
    ours = tinyplm.load(tmp_path / "published", task="multi_token_lm")
    tinyplm.save(ours, tmp_path / "ours")
    with float64():
        again, info = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path / "ours", **EAGER, output_loading_info=True)
        again_modules = MtpModel.from_pretrained(again).double().eval()
        again = again.double().eval()
    assert not info["unexpected_keys"] and not info["missing_keys"]
    assert_bit_equal(again.state_dict(), theirs.state_dict())
    assert_bit_equal(again_modules.layers.state_dict(), modules.layers.state_dict())
    ids = np.random.default_rng(0).integers(0, 41, (2, 5))
    outputs, _ = ours(ids, grad=False)
    logits, (later,) = their_states(again, again_modules, ids)
    assert_same("logits", outputs["logits"], logits.detach().numpy())
    assert_same("the module", outputs["later_hidden"][:, :-1, 0], later.detach().numpy())


def test_ours_from_the_start(tmp_path):
    """A model created by us, in float32: transformers computes what we do."""
    theirs, _ = with_modules(1)
    ours = tinyplm.create("deepseek_v3", settings_of(theirs, tmp_path), task="multi_token_lm", key=3)
    tinyplm.save(ours, tmp_path)
    plain = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path, **EAGER)
    ids = np.random.default_rng(0).integers(0, 41, (2, 5))
    assert_same("logits", ours.astype("float64")(ids)[0]["logits"], exact_logits(plain, ids))
    assert tinyplm.load(tmp_path, task="multi_token_lm").config == ours.config


def settings_of(theirs, folder):
    theirs.save_pretrained(folder)
    return settings_in(folder)


WRONG = {
    "missing": (lambda t: t.pop("model.layers.2.eh_proj.weight"), "missing tensors: model.layers.2.eh_proj.weight$"),
    "missing module": (
        lambda t: [t.pop(name) for name in list(t) if ".layers.2." in name],
        "missing tensors: model.layers.2.mlp.gate.e_score_correction_bias, model.layers.2.hnorm.weight, .*, and 30 more$",
    ),
    "shape": (
        lambda t: t.update({"model.layers.2.enorm.weight": torch.ones(31)}),
        r"model.layers.2.enorm.weight: expected shape \(32,\), got \(31,\)$",
    ),
    "another table": (
        lambda t: t["model.layers.2.embed_tokens.weight"].add_(1),
        "model.layers.2.embed_tokens.weight: expected the values of model.embed_tokens.weight, got others$",
    ),
    "another head": (
        lambda t: t["model.layers.2.shared_head.head.weight"].add_(1),
        "model.layers.2.shared_head.head.weight: expected the values of lm_head.weight, got others$",
    ),
    "extra": (lambda t: t.update({"model.layers.2.fnorm.weight": torch.ones(3)}), "extra tensors: model.layers.2.fnorm.weight$"),
    "another layer": (lambda t: t.update({"model.layers.3.enorm.weight": torch.ones(3)}), "extra tensors: model.layers.3.enorm"),
    "missing correction": (
        lambda t: t.pop("model.layers.2.mlp.gate.e_score_correction_bias"),
        "missing tensors: model.layers.2.mlp.gate.e_score_correction_bias$",
    ),
}


@pytest.mark.parametrize("change", WRONG)
def test_wrong_tensors_are_named_in_one_line(tmp_path, change):
    theirs, modules = with_modules(1)
    tensors = published(theirs, modules, tmp_path)
    alter, message = WRONG[change]
    alter(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=message) as error:
        tinyplm.load(tmp_path, task="multi_token_lm")
    assert "\n" not in str(error.value)
    if change not in ("another layer",):
        assert tinyplm.load(tmp_path).task == "causal_lm"  # none of it is read


def test_a_tied_head_differs_from_the_copy_too(tmp_path):
    theirs, modules = with_modules(1, tie_word_embeddings=True)
    tensors = published(theirs, modules, tmp_path)
    tensors["model.layers.2.shared_head.head.weight"].add_(1)
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="model.layers.2.shared_head.head.weight: expected the values of") as error:
        tinyplm.load(tmp_path, task="multi_token_lm")
    assert "\n" not in str(error.value)
