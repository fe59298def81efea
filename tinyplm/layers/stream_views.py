"""What XLNet's two streams see, as masks in our convention, from inputs in the hub's."""

from __future__ import annotations

from typing import Any

from ..arguments import is_whole, wrong
from ..backend import is_host
from ..core import Array
from ..shapes import check_array, check_module
from .mask import causal_mask, combine_masks, sliding_mask


def one_way_band(T: int, S: int, *, same_length: bool, xp: Any) -> Array:
    """(T, S) for attention to the past alone: all keys up to the query.

    same_length: each query sees the same number of keys, S - T + 1, as in the released code's
    evaluation.
    Dai et al. 2019, sec. 3.2.
    """
    if same_length:
        return sliding_mask(T, S, window=S - T + 1, xp=xp)
    return causal_mask(T, S, xp=xp)


def stream_views(
    shape: tuple[int, int, int],
    *,
    band: Array | None = None,
    attention_mask: Array | None = None,
    input_mask: Array | None = None,
    perm_mask: Array | None = None,
    target_mapping: Array | None = None,
    token_type_ids: Array | None = None,
    xp: Any,
) -> tuple[dict, dict | None]:
    """What `relative_attention` takes for the content and the query stream (None without targets).

    Yang et al. 2019, sec. 2.3.
    shape (B, T, S): T tokens in each of B samples, after S - T of memory
    band (T, S) booleans: what a token may see at all
    attention_mask (B, T), 0 = padding, or input_mask (B, T), 1 = padding
    perm_mask (B, T, T): 1 where token i may not attend to token j
    target_mapping (B, M, T): a one in each row at the target's place; a row of zeros is no
                              target, and sees nothing
    token_type_ids (B, T): segments; the memory is of segment 0

    A token sees what no mask hides, and always itself and all of the memory that the band allows.
    A target sees what the token in its place sees, but not that token where perm_mask hides it from
    itself.  A target that sees nothing gets zeros from attention (in transformers an average over
    all tokens, its own included); several targets in one place get an output each (transformers
    adds up their queries).
    """
    B, T, S = checked_shape(shape)
    check_array("band", band, "(T, S) booleans or None", T=T, S=S)
    check_array("attention_mask", attention_mask, "(B, T) numbers or None", B=B, T=T)
    check_array("input_mask", input_mask, "(B, T) numbers or None", B=B, T=T)
    check_array("perm_mask", perm_mask, "(B, T, T) numbers or None", B=B, T=T)
    check_array("target_mapping", target_mapping, "(B, M, T) numbers or None", B=B, T=T)
    check_array("token_type_ids", token_type_ids, "(B, T) integers or None", B=B, T=T)
    check_module("xp", xp)
    check_inputs(B, T, attention_mask, input_mask, target_mapping)
    if input_mask is not None:
        attention_mask = input_mask == 0
    seen = combine_masks(
        None if attention_mask is None else (attention_mask != 0)[:, None, :],
        None if perm_mask is None else perm_mask == 0,
    )
    if seen is not None:
        memory_seen = xp.ones((*seen.shape[:2], S - T), dtype=bool)
        seen = xp.concatenate([memory_seen, seen], axis=-1)
    seen = combine_masks(seen, None if band is None else band[None])  # (B or 1, T or 1, S)
    content: dict[str, Array | None] = {"mask": None, "different": None}
    if seen is not None:
        own = xp.arange(S - T, S)[:, None] == xp.arange(S)
        content["mask"] = (seen | own)[:, None]
    if token_type_ids is not None:
        memory_segments = xp.zeros((B, S - T), dtype=token_type_ids.dtype)
        segments = xp.concatenate([memory_segments, token_type_ids], axis=1)
        different = token_type_ids[:, :, None] != segments[:, None, :]
        content["different"] = different
    if target_mapping is None:
        return content, None

    places, samples = target_mapping.argmax(axis=-1), xp.arange(B)[:, None]
    mask = (target_mapping != 0).any(axis=-1)[:, None, :, None]
    query = {"mask": mask, "different": None, "places": places}
    if seen is not None:
        query["mask"] = mask & xp.broadcast_to(seen, (B, T, S))[samples, places][:, None]
    if token_type_ids is not None:
        query["different"] = different[samples, places]
    return content, query


def checked_shape(shape: Any) -> tuple[int, int, int]:
    """(B, T, S), checked."""
    right = (
        isinstance(shape, tuple) and len(shape) == 3 and all(is_whole(n) and n >= 0 for n in shape)
    )
    if not right or shape[1] > shape[2]:
        raise wrong("shape", "(B, T, S) with T <= S", shape)
    return shape


def check_inputs(
    B: int,
    T: int,
    attention_mask: Array | None,
    input_mask: Array | None,
    target_mapping: Array | None,
) -> None:
    """ValueError for two masks of padding, and for a target_mapping that is not one-hot."""
    if attention_mask is not None and input_mask is not None:
        raise ValueError("attention_mask, input_mask: expected at most one of them, got both")
    if target_mapping is None:
        return
    if target_mapping.shape[1] == 0:
        raise ValueError(
            f"target_mapping: expected shape ({B}, M, {T}) with M >= 1, got {target_mapping.shape}"
        )
    if is_host(target_mapping):  # on a GPU this check would wait for the device
        one = (target_mapping == 1) & (target_mapping.sum(axis=-1, keepdims=True) == 1)
        if ((target_mapping != 0) & ~one).any():
            raise wrong("target_mapping", "zeros, and at most one 1 in each row", target_mapping)
