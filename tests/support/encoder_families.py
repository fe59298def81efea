"""The encoder families as the tests see them; a family added here as one row gets all tests of test_encoders.py.

Every TINY config has a vocabulary of 11, room for 6 tokens, three labels, a few layers, and dropout rates of 0.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import tinyplm
from tests.support import families
from tinyplm.backend import to_host
from tinyplm.core import tree_map
from tinyplm.families import albert, bert, deberta, deberta_v2, distilbert, roberta, xlnet
from tinyplm.models.config import labels

VOCABULARY, CONTEXT = 11, 6
LABELS = labels(["red", "green", "blue"])


class Family(NamedTuple):
    module: ModuleType
    config: Any  # TINY
    dropout: dict[str, str]  # every dropout rate: a task that uses it
    variants: dict[str, dict[str, Any]] = {}  # changes to TINY that take other paths, each a separate row
    same: tuple[str, ...] = ()  # other model types for this same family
    zeroed: bool = False  # padding embeddings are zero, so not even the outputs at padding depend on it
    left: bool = False  # heads look at the last token, so padding is in front


FAMILIES = {
    "bert": Family(
        bert,
        bert.Config(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, hidden_size=6, intermediate_size=7,
                    num_hidden_layers=2, num_attention_heads=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                    classifier_dropout=0.0, **LABELS),
        dropout={"hidden_dropout_prob": "body", "attention_probs_dropout_prob": "body",
                 "classifier_dropout": "sequence_classification"},
        variants={"tanh GELU, three types": {"hidden_act": "gelu_new", "type_vocab_size": 3}},
    ),
    # The padding id is 1, which `batch` never draws; positions start after it.
    "roberta": Family(
        roberta,
        roberta.Config(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT + 2, hidden_size=6, intermediate_size=7,
                       num_hidden_layers=2, num_attention_heads=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                       classifier_dropout=0.0, **LABELS),
        dropout={"hidden_dropout_prob": "multiple_choice", "attention_probs_dropout_prob": "body",
                 "classifier_dropout": "sequence_classification"},
        variants={"ReLU inside, the erf GELU in the head": {"hidden_act": "relu"}},
        same=("xlm-roberta", "camembert"),
    ),
    "albert": Family(
        albert,
        albert.Config(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, embedding_size=4, hidden_size=6,
                      intermediate_size=7, num_hidden_layers=3, num_hidden_groups=2, num_attention_heads=2,
                      classifier_dropout_prob=0.0, **LABELS),
        dropout={"hidden_dropout_prob": "body", "attention_probs_dropout_prob": "body",
                 "classifier_dropout_prob": "sequence_classification"},
        variants={"one group": {"num_hidden_groups": 1}, "two blocks a group": {"inner_group_num": 2},
                  "as many groups as layers": {"num_hidden_groups": 3}},
    ),
    "distilbert": Family(
        distilbert,
        distilbert.Config(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, dim=6, hidden_dim=7, n_layers=2, n_heads=2,
                          dropout=0.0, attention_dropout=0.0, qa_dropout=0.0, seq_classif_dropout=0.0, **LABELS),
        dropout={"dropout": "body", "attention_dropout": "body", "qa_dropout": "question_answering",
                 "seq_classif_dropout": "sequence_classification"},
    ),
    # Relative positions beyond 2 count as 2, so some are clipped within 5 tokens.
    "deberta": Family(
        deberta,
        deberta.Config(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, hidden_size=6, intermediate_size=7,
                       num_hidden_layers=2, num_attention_heads=2, type_vocab_size=2, relative_attention=True,
                       max_relative_positions=2, pos_att_type=["c2p", "p2c"], hidden_dropout_prob=0.0,
                       attention_probs_dropout_prob=0.0, cls_dropout=0.0, **LABELS),
        dropout={"hidden_dropout_prob": "body", "attention_probs_dropout_prob": "body", "cls_dropout": "sequence_classification",
                 "pooler_dropout": "sequence_classification"},
        zeroed=True,
        variants={"c2p alone": {"pos_att_type": ["c2p"]}, "the other head": {"legacy": False},
                  "no relative positions": {"relative_attention": False}, "no absolute ones": {"position_biased_input": False}},
    ),
    "deberta-v2": Family(
        deberta_v2,
        deberta_v2.Config(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, hidden_size=6, intermediate_size=7,
                          num_hidden_layers=2, num_attention_heads=2, type_vocab_size=2, relative_attention=True,
                          position_buckets=2, share_att_key=True, norm_rel_ebd="layer_norm", conv_kernel_size=3, conv_act="gelu",
                          pos_att_type=["c2p", "p2c"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                          cls_dropout=0.0, **LABELS),
        dropout={"hidden_dropout_prob": "body", "attention_probs_dropout_prob": "body", "cls_dropout": "sequence_classification",
                 "pooler_dropout": "sequence_classification"},
        zeroed=True,
        variants={"keys of its own": {"share_att_key": False, "conv_kernel_size": 0, "norm_rel_ebd": "none"},
                  "two groups": {"conv_groups": 2}, "p2c alone": {"pos_att_type": ["p2c"]},
                  "as v3": {"position_biased_input": False, "type_vocab_size": 0, "conv_kernel_size": 0}},
    ),
    "xlnet": Family(
        xlnet,
        xlnet.Config(vocab_size=VOCABULARY, d_model=6, n_layer=2, n_head=2, d_inner=7, dropout=0.0, summary_last_dropout=0.0,
                     pad_token_id=1, **LABELS),
        dropout={"dropout": "body", "summary_last_dropout": "sequence_classification"},
        left=True,
        variants={"clamped": {"clamp_len": 2}, "ReLU, ends of a row": {"ff_activation": "relu"}},
    ),
}  # fmt: skip

CASES = [(name, task) for name, family in FAMILIES.items() for task in family.module.TASKS]
TRAINED = [(name, task) for name, task in CASES if task not in ("body", "pooled")]  # those with a loss
VARIANTS = [(name, variant) for name, family in FAMILIES.items() for variant in family.variants]


def tiny(family: str, task: str | None = None, seed: int = 0, dtype: str = "float64", device: str = "cpu",
         **changes: Any) -> tinyplm.Model:  # fmt: skip
    """A tiny model with every parameter random, including biases and norms."""
    return families.randomised(family, FAMILIES[family].config, task, seed, dtype, changes).to(device)


# Padding after the tokens and between them; never the first token, since heads look at it.
PADDING = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [1, 1, 1, 0, 0]])


def padding(model: tinyplm.Model, T: int = 5) -> np.ndarray:
    """The mask of `batch`: (3, T), or (3, 2, T) for multiple choice."""
    mask = np.stack([PADDING, PADDING[::-1]], axis=1) if model.task == "multiple_choice" else PADDING
    return mask[..., ::-1][..., -T:] if FAMILIES[model.config.MODEL_TYPE].left else mask[..., :T]


def batch(model: tinyplm.Model, seed: int = 0, T: int = 5) -> dict[str, np.ndarray]:
    """Inputs of three samples with padding, for multiple choice two choices each.  Ids are 2 to 8, and so are 10 - ids."""
    rng = np.random.default_rng(seed)
    shape = (3, 2, T) if model.task == "multiple_choice" else (3, T)
    inputs = {"input_ids": rng.integers(2, 9, shape), "attention_mask": padding(model, T)}
    if "token_type_ids" in model.family.INPUTS:
        inputs["token_type_ids"] = rng.integers(0, 2, shape)
    return inputs


def targets_for(model: tinyplm.Model, outputs: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Class numbers for every output with a loss; for token outputs some are -100."""
    rng = np.random.default_rng(seed)
    targets = {}
    for name, a in outputs.items():
        if name not in ("hidden", "pooled"):
            targets[name] = rng.integers(0, a.shape[-1], a.shape[:-1])
            if a.ndim == 3:
                targets[name][padding(model, a.shape[1]) == 0] = -100
                targets[name][0, 2] = -100
    return targets


def keys_of_masks(monkeypatch, call) -> list[int]:
    """The keys from which dropout draws its masks during a call, in order; only the first sample's key."""
    keys, module = [], sys.modules["tinyplm.layers.dropout"]

    def noted(key, shape, draw=module.uniform_bits):
        keys.append(int(to_host(key)[0]))
        return draw(key, shape)

    with monkeypatch.context() as patch:
        patch.setattr(module, "uniform_bits", noted)
        call()
    return keys


def random_like(tree, seed=1):
    rng = np.random.default_rng(seed)
    return tree_map(lambda a: rng.normal(size=a.shape), to_host(tree))
