# ruff: noqa: E402 - imports follow importorskip
"""Folders of encoder-decoders against transformers: the same files in both directions, whole and sharded; the shared table under
several names, heads of their own, bare bodies, and sizes.

test_released_seq2seq.py has the spellings of config.json, and decoding.
"""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file

import tinyplm
from tests.interop.pair import FILE_DTYPES, as_torch, assert_bit_equal, assert_same, float64
from tests.interop.seq2seq_pair import FAMILIES, FIRST, peer, sinusoids
from tests.interop.test_causal_files import DIFFICULT, assert_same_parameters, settings_in, shards
from tinyplm.core import flatten
from tinyplm.hub.names import count_parameters
from tinyplm.models.config import to_dict
from tinyplm.models.names import hub_shapes, names_of, to_hub

ALL = list(FAMILIES)
OF_T5 = [family for family in ALL if "t5" in family]
IDS = np.random.default_rng(0).integers(FIRST, 41, (2, 8))
DECODER_IDS = np.random.default_rng(1).integers(FIRST, 41, (2, 5))
LIMITS = {"F32": "20KB", "BF16": "9KB", "F16": "1GB", "F64": "1GB"}
# a vector, a matrix that we transpose, one that we do not
SPOTS = {
    "t5": ("encoder.block.1.layer.0.layer_norm.weight", "decoder.block.0.layer.1.EncDecAttention.o.weight",
           "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
    "bart": ("model.encoder.layers.0.self_attn.k_proj.bias", "model.decoder.layers.1.encoder_attn.out_proj.weight",
             "final_logits_bias"),
}  # fmt: skip


def spots(family):
    return SPOTS["t5" if family in OF_T5 else "bart"]


def untied(theirs):
    """transformers 5 always ties the head of a new T5."""
    head = np.random.default_rng(3).normal(size=theirs.lm_head.weight.shape)
    theirs.lm_head.weight = torch.nn.Parameter(torch.from_numpy(head))
    return theirs


def saved(family, folder, dtype=torch.float64, own_head=False, limit="1GB", **changes):
    """transformers' tiny model in a dtype, difficult values in it, and its folder."""
    theirs = peer(family, **changes)
    theirs = untied(theirs) if own_head else theirs
    with torch.no_grad():
        for name in spots(family):
            flat = theirs.state_dict()[name].view(-1)
            flat[:5] = flat[-5:] = torch.tensor(DIFFICULT, dtype=torch.float64)
    theirs = theirs.to(dtype)
    theirs.save_pretrained(folder, max_shard_size=limit)
    return theirs


def read(family, folder, kind=None):
    """transformers' model in one dtype: it keeps one matrix of a T5 in float16 in float32."""
    theirs = (kind or FAMILIES[family].lm).from_pretrained(folder, attn_implementation="eager").eval()
    return theirs.to(theirs.dtype)


def random_model(family, dtype="float64", **changes):
    """A model created by us with every parameter and buffer random, some of them difficult values."""
    name = FAMILIES[family].module.Config.MODEL_TYPE
    return random_model_of({"model_type": name, **FAMILIES[family].tiny, **changes}, dtype)


def random_model_of(settings, dtype="float64"):
    """The same, of the contents of a config.json."""
    ours = tinyplm.create(settings["model_type"], settings, key=3, dtype=dtype)
    rng = np.random.default_rng(0)
    for a in (leaves := flatten({"params": ours.params, "buffers": ours.buffers})).values():
        a += rng.normal(0, 0.3, a.shape)
    for path in ("encoder.layers.1.norm1.gamma", "decoder.layers.0.cross.Wo"):
        leaves[f"params.body.{path}"].reshape(-1)[:5] = leaves[f"params.body.{path}"].reshape(-1)[-5:] = DIFFICULT
    return ours


def in_folder(folder, limit):
    """The tensors of its one file, or of its shards."""
    files = [load_file(folder / "model.safetensors")] if limit == "1GB" else shards(folder)[1].values()
    return {name: t for file in files for name, t in file.items()}


def their_tensors(theirs):
    """Of a file: without the other names of the shared table and Marian's sinusoids."""
    table = theirs.get_input_embeddings().weight
    own = {name: t.detach() for name, t in theirs.state_dict().items() if not name.endswith("embed_tokens.weight")}
    if theirs.config.model_type == "marian":
        own = {name: t for name, t in own.items() if not name.endswith("embed_positions.weight")}
    return {name: t for name, t in own.items() if not (name == "lm_head.weight" and t.data_ptr() == table.data_ptr())}


def our_tensors(ours, dtype=None):
    named = to_hub({**ours.params, "buffers": ours.buffers}, names_of(ours.family, ours.config))
    return {name: torch.from_numpy(a.copy()).to(dtype) for name, a in named.items()}


def exact_logits(theirs):
    """Logits computed in float64 throughout, whatever the model's dtype."""
    with float64(), torch.no_grad():
        model = type(theirs)(theirs.config).double().eval()
        if theirs.lm_head.weight is not theirs.get_input_embeddings().weight:
            untied(model)
        model.load_state_dict({name: t.double() for name, t in theirs.state_dict().items()})
        for side in ("encoder", "decoder") if theirs.config.model_type == "marian" else ():
            model.get_parameter(f"model.{side}.embed_positions.weight").copy_(torch.from_numpy(sinusoids(model.config)))
        return model(**as_torch(input_ids=IDS, decoder_input_ids=DECODER_IDS)).logits.numpy()


def our_logits(ours):
    return ours.astype("float64")(IDS, decoder_input_ids=DECODER_IDS, grad=False)[0]["logits"]


def assert_same_state(a, b):
    """Of two models of transformers; Marian's sinusoids are computed, not read."""
    assert_bit_equal(their_tensors(a), their_tensors(b))
    assert (a.lm_head.weight is a.get_input_embeddings().weight) == (b.lm_head.weight is b.get_input_embeddings().weight)


# ------------------------------------------------------------------------------------------------------------- tensors


@pytest.mark.parametrize("name", list(FILE_DTYPES))
@pytest.mark.parametrize("family", ALL)
def test_transformers_to_ours_to_transformers_is_bit_equal(tmp_path, family, name):
    """Float32 and bfloat16 in shards.  The head is T5's own in half of the dtypes."""
    dtype, limit = FILE_DTYPES[name], LIMITS[name]
    theirs = saved(family, tmp_path / "theirs", dtype, family in OF_T5 and name in ("F32", "F16"), limit)
    ours = tinyplm.load(tmp_path / "theirs")
    assert set(ours.file_dtypes.values()) == {name}
    exact = torch.float32 if name == "BF16" else dtype  # NumPy has no bfloat16; float32 represents all its values
    assert_bit_equal(our_tensors(ours), {n: t.to(exact) for n, t in their_tensors(theirs).items()})
    tinyplm.save(ours, tmp_path / "ours", max_shard_size=limit)
    assert_bit_equal(in_folder(tmp_path / "ours", limit), in_folder(tmp_path / "theirs", limit))
    again = read(family, tmp_path / "ours")
    assert again.dtype == dtype
    assert_same_state(again, theirs)
    assert_same("logits", our_logits(ours), exact_logits(again))


@pytest.mark.parametrize("name", list(FILE_DTYPES))
@pytest.mark.parametrize("family", ALL)
def test_ours_to_transformers_to_ours_is_bit_equal(tmp_path, family, name):
    """A model created by us, float32 or float64 in memory, rounded to the file's dtype exactly as torch rounds."""
    tied = family not in OF_T5 or name in ("BF16", "F64")
    ours = random_model(family, "float64" if name == "F64" else "float32", tie_word_embeddings=tied)
    tinyplm.save(ours, tmp_path / "ours", dtype=name, max_shard_size=LIMITS[name])
    theirs = read(family, tmp_path / "ours")
    assert theirs.dtype == FILE_DTYPES[name]
    assert_bit_equal(our_tensors(ours, theirs.dtype), their_tensors(theirs))
    again = tinyplm.load(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=LIMITS[name])
    assert_same("logits", our_logits(again), exact_logits(theirs))
    back = tinyplm.load(tmp_path / "theirs")
    assert set(back.file_dtypes.values()) == {name}
    assert_same_parameters(back, again)
    assert_bit_equal(our_tensors(back), our_tensors(again))


@pytest.mark.parametrize("scaled", [True, False, None])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_what_t5_does_with_its_head(tmp_path, family, tied, scaled):
    """transformers decides by the tensors whether it is tied, and by scale_decoder_outputs, or tie_word_embeddings where that is
    missing, whether its output is scaled; mT5's never is."""
    told = {} if scaled is None else {"scale_decoder_outputs": scaled}
    ours = random_model(family, tie_word_embeddings=tied, **told)
    expected = family == "t5" and (tied if scaled is None else scaled)
    assert (ours.config.logit_scale != 1) == expected
    tinyplm.save(ours, tmp_path / "ours")
    assert settings_in(tmp_path / "ours").get("scale_decoder_outputs") is scaled
    theirs = read(family, tmp_path / "ours")
    assert_same("logits", our_logits(ours), exact_logits(theirs))
    theirs.save_pretrained(tmp_path / "theirs")
    assert settings_in(tmp_path / "theirs")["tie_word_embeddings"] is True
    back = tinyplm.load(tmp_path / "theirs")
    assert back.config.tie_word_embeddings == tied and (back.config.logit_scale != 1) == expected
    assert np.array_equal(our_logits(back), our_logits(ours))
    tinyplm.save(back, tmp_path / "again")
    assert_same("logits", our_logits(ours), exact_logits(read(family, tmp_path / "again")))


def test_shards_of_ours_over_a_whole_file_and_over_shards(tmp_path):
    """With one tensor in each."""
    for seed, limit in enumerate((1, "1GB", 1)):
        ours = random_model("t5")
        flatten(ours.params)["body.encoder.layers.0.norm1.gamma"][...] = seed
        tinyplm.save(ours, tmp_path, max_shard_size=limit)
        assert_bit_equal(their_tensors(read("t5", tmp_path)), our_tensors(ours))
    assert len(shards(tmp_path)[1]) == len(our_tensors(ours))


# ------------------------------------------------------------------------------------------- bare bodies and old files

BODIES = {"t5": "T5Model", "t5-v1_1": "T5Model", "mt5": "MT5Model", "bart": "BartModel", "mbart": "MBartModel",
          "marian": "MarianModel"}  # fmt: skip


@pytest.mark.parametrize("family", ALL)
def test_the_bare_body_loads(tmp_path, family):
    """As facebook/bart-large: without the prefix "model.", a head and the bias of the logits."""
    body = getattr(peer(family), "model", None)
    if body is None:
        whole = peer(family)
        with float64():
            body = getattr(transformers, BODIES[family])(whole.config).double().eval()
        body.load_state_dict({name: t for name, t in whole.state_dict().items() if name != "lm_head.weight"})
    body.save_pretrained(tmp_path)
    assert settings_in(tmp_path)["architectures"] == [BODIES[family]]
    assert "shared.weight" in load_file(tmp_path / "model.safetensors")
    ours = tinyplm.load(tmp_path)
    assert ours.task == "seq2seq_lm"
    with float64():
        expected = body(**as_torch(input_ids=IDS, decoder_input_ids=DECODER_IDS)).last_hidden_state.detach().numpy()
    outputs, _ = ours(IDS, decoder_input_ids=DECODER_IDS)
    assert_same("hidden", outputs["hidden"], expected)
    scale = ours.config.logit_scale
    assert_same("logits", outputs["logits"], scale * expected @ body.get_input_embeddings().weight.detach().numpy().T)
    tinyplm.save(ours, tmp_path / "ours")
    again = read(family, tmp_path / "ours", getattr(transformers, BODIES[family]))
    names = body.state_dict().keys() - {f"{side}.embed_positions.weight" for side in ("encoder", "decoder") if family == "marian"}
    assert_bit_equal({n: again.state_dict()[n] for n in names}, {n: body.state_dict()[n] for n in names})


def held(family):
    """The shared table's own name, and those of its copies."""
    prefix = "" if family in OF_T5 else "model."
    copies = [f"{prefix}{side}.embed_tokens.weight" for side in ("encoder", "decoder")]
    return f"{prefix}shared.weight", [*copies, "lm_head.weight"]


OLD = {"t5": {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.rand(8, 4)},
       "marian": {f"model.{side}.embed_positions.weight": torch.rand(16, 32) for side in ("encoder", "decoder")}}  # fmt: skip


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("family", ALL)
def test_the_shared_table_under_all_its_names(tmp_path, family, dropped):
    """As pytorch_model.bin had it, and without the first of them; and tensors that are never used, with wrong values."""
    theirs = saved(family, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    shared, copies = held(family)
    whole = {**tensors, **{name: tensors[shared].clone() for name in copies}, **OLD.get(family, {})}
    if dropped:
        del whole[shared]
    save_file(whole, tmp_path / "model.safetensors", {"format": "pt"})
    ours = tinyplm.load(tmp_path)
    assert_bit_equal(our_tensors(ours), their_tensors(theirs))
    assert_same("logits", our_logits(ours), exact_logits(theirs))
    if not dropped:
        assert_bit_equal(their_tensors(read(family, tmp_path)), their_tensors(theirs))
    tinyplm.save(ours, tmp_path / "new")
    assert_bit_equal(load_file(tmp_path / "new" / "model.safetensors"), tensors)
    whole[copies[1]][3, 3] += 1
    save_file(whole, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"{copies[1]}: expected the values of {shared}, got others|{copies[0]}"):
        tinyplm.load(tmp_path)


@pytest.mark.parametrize("family", ["bart", "mbart", "marian"])
def test_a_file_without_the_bias_of_the_logits(tmp_path, family):
    theirs = saved(family, tmp_path)
    with torch.no_grad():
        theirs.final_logits_bias.zero_()
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors.pop("final_logits_bias").any()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    ours = tinyplm.load(tmp_path)
    assert_same("logits", our_logits(ours), exact_logits(theirs))
    tinyplm.save(ours, tmp_path / "ours")
    assert_same_state(read(family, tmp_path / "ours"), theirs)


# ----------------------------------------------------------------------------------------------------------------- sizes

SIZES = [(family, size) for family in ALL for size in FAMILIES[family].module.SIZES if family != "t5-v1_1"]


@pytest.mark.parametrize(("family", "size"), SIZES)
def test_sizes_have_the_counts_of_transformers(family, size):
    """And every tensor's shape, on torch's meta device, which allocates nothing.  The count is a constant and a multiple of the
    number of layers, the same on both sides: two small numbers tell it.  transformers makes no T5 with its own head."""
    module = FAMILIES[family].module
    config = module.SIZES[size]
    names = ("num_layers", "num_decoder_layers") if family in OF_T5 else ("encoder_layers", "decoder_layers")
    head = {} if config.tie_word_embeddings else {"lm_head.weight": (config.vocab_size, config.d_model)}
    counts = []
    for depth in (1, 2):
        fewer = dataclasses.replace(config, **dict.fromkeys(names, depth))
        with torch.device("meta"):
            theirs = FAMILIES[family].lm(FAMILIES[family].config(**to_dict(fewer)))
        shapes = {name: tuple(p.shape) for name, p in theirs.named_parameters() if p.requires_grad} | head
        leaves = {path: np.broadcast_to(np.float32(0), shape) for path, shape in flatten(module.shapes(fewer)).items()}
        assert hub_shapes(leaves, names_of(module, fewer)) == shapes
        counts.append(sum(math.prod(shape) for shape in shapes.values()))
    L, M = (getattr(config, name) for name in names)
    assert M in (L, None)
    assert count_parameters(module.shapes(config)) == counts[0] + (L - 1) * (counts[1] - counts[0])


@pytest.mark.parametrize("family", ALL)
def test_the_defaults_are_those_of_transformers(family):
    module, theirs = FAMILIES[family].module, FAMILIES[family].config().to_dict()
    ours = to_dict(module.Config())
    if family in OF_T5:
        ours["num_decoder_layers"] = ours["num_layers"]  # filled in by transformers
        ours.pop("scale_decoder_outputs", None)
        ours["tie_word_embeddings"] = True  # transformers writes true whatever the model is
        ours.pop("decoder_start_token_id")  # the released ones', which transformers asks the file for
    if family == "marian":
        ours["decoder_vocab_size"] = ours["vocab_size"]
        ours.pop("classifier_dropout")  # there is no head of classes
    differ = {name: (value, theirs.get(name)) for name, value in ours.items() if theirs.get(name) != value}
    assert not differ
    assert json.loads(json.dumps(to_dict(module.Config()))) == to_dict(module.Config())
