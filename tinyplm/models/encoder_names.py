"""The hub names of encoders like BERT, made by the names of their modules."""

from __future__ import annotations

from .names import Rename, linear, linears, weight_and_bias

LAYER = "body.layers.{i}"


def norm_names(hub: str, norm: str, layer: str = LAYER) -> list[Rename]:
    """One of a block's two norms."""
    return weight_and_bias(hub, f"{layer}.{norm}.gamma", f"{layer}.{norm}.beta")


def embedding_names(prefix: str) -> list[Rename]:
    """Tables and norm of the embeddings."""
    hub = f"{prefix}.embeddings"
    return [
        Rename(f"{hub}.word_embeddings.weight", "body.tokens"),
        Rename(f"{hub}.position_embeddings.weight", "body.positions"),
        Rename(f"{hub}.token_type_embeddings.weight", "body.segments"),
        *weight_and_bias(f"{hub}.LayerNorm", "body.norm.gamma", "body.norm.beta"),
    ]


def block_names(hub: str) -> list[Rename]:
    """A block, without what makes its queries, keys and values."""
    return [
        *linears(f"{hub}.attention.output", f"{LAYER}.attention", dense="o"),
        *norm_names(f"{hub}.attention.output.LayerNorm", "norm1"),
        *linears(f"{hub}.intermediate", f"{LAYER}.mlp", dense="1"),
        *linears(f"{hub}.output", f"{LAYER}.mlp", dense="2"),
        *norm_names(f"{hub}.output.LayerNorm", "norm2"),
    ]


def body_names(prefix: str) -> list[Rename]:
    """A body like BERT's, and the pooler, which the hub counts to it."""
    hub, projections = f"{prefix}.encoder.layer.{{i}}", {"query": "q", "key": "k", "value": "v"}
    return [
        *embedding_names(prefix),
        *linears(f"{hub}.attention.self", f"{LAYER}.attention", **projections),
        *block_names(hub),
        *linear(f"{prefix}.pooler.dense", "head.pooler"),
    ]


def lm_names(dense: str, norm: str, bias: str) -> list[Rename]:
    """A masked-LM head, by its linear layer, its norm and its bias."""
    return [
        *linear(dense, "head.transform"),
        *weight_and_bias(norm, "head.transform.gamma", "head.transform.beta"),
        Rename(bias, "head.bias"),
    ]


HEADS = [
    *linear("classifier", "head.classifier"),
    *linear("classifier", "head.tokens"),
    *linear("qa_outputs", "head.span"),
]
BUFFERS = (r"embeddings\.position_ids$",)  # in older files


def tied(bias: str, prefix: str) -> dict[str, str]:
    """The copies that a file may hold of the table and of the bias with this name."""
    decoder = f"{bias.removesuffix('.bias')}.decoder"
    table = f"{prefix}.embeddings.word_embeddings.weight"
    return {f"{decoder}.weight": table, f"{decoder}.bias": bias}
