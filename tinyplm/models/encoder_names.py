"""The hub names of encoders like BERT, made by the names of their modules."""

from __future__ import annotations

from .names import Operation, Rename, linear, linears, permuted, weight_and_bias

# what families need beside the makers
__all__ = ["Operation", "Rename", "linear", "linears", "permuted"]

LAYER = "body.layers.{i}"


def norm(hub: str, path: str) -> list[Rename]:
    """A layer norm."""
    return weight_and_bias(hub, f"{path}.gamma", f"{path}.beta")


def transposed(hub: str, path: str) -> Rename:
    """A matrix that torch has as (out, in)."""
    return Rename(hub, path, operation="transpose")


def embedding_names(prefix: str) -> list[Rename]:
    """Tables and norm of the embeddings."""
    hub = f"{prefix}.embeddings"
    return [
        Rename(f"{hub}.word_embeddings.weight", "body.tokens"),
        Rename(f"{hub}.position_embeddings.weight", "body.positions"),
        Rename(f"{hub}.token_type_embeddings.weight", "body.segments"),
        *norm(f"{hub}.LayerNorm", "body.norm"),
    ]


def block_names(hub: str) -> list[Rename]:
    """A block, without what makes its queries, keys and values."""
    return [
        *linears(f"{hub}.attention.output", f"{LAYER}.attention", dense="o"),
        *norm(f"{hub}.attention.output.LayerNorm", f"{LAYER}.norm1"),
        *linears(f"{hub}.intermediate", f"{LAYER}.mlp", dense="1"),
        *linears(f"{hub}.output", f"{LAYER}.mlp", dense="2"),
        *norm(f"{hub}.output.LayerNorm", f"{LAYER}.norm2"),
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


def lm_names(dense: str, layernorm: str, bias: str) -> list[Rename]:
    """A masked-LM head, by its linear layer, its norm and its bias."""
    transform = [*linear(dense, "head.transform"), *norm(layernorm, "head.transform")]
    return [*transform, Rename(bias, "head.bias")]


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
