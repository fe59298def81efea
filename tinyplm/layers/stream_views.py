"""What the two streams of XLNet see: masks in our convention, segments and places, from the inputs in the hub's."""

from __future__ import annotations

from typing import Any

from ..arguments import is_whole, wrong
from ..backend import is_host
from ..shapes import check_array, check_module
from .mask import causal_mask, combine_masks, sliding_mask


def one_way_band(T: int, S: int, *, same_length: bool, xp: Any):
    """(T, S) for attention to the past alone: all keys up to the query, or for each query the same number, S - T + 1 of them.

    Dai et al. 2019, sec. 3.2; same_length is the evaluation of its released code.
    """
    return sliding_mask(T, S, window=S - T + 1, xp=xp) if same_length else causal_mask(T, S, xp=xp)


def stream_views(shape: tuple[int, int, int], *, band=None, attention_mask=None, input_mask=None, perm_mask=None,
                 target_mapping=None, token_type_ids=None, xp: Any) -> tuple[dict, dict | None]:  # fmt: skip
    """What `relative_attention` takes for the content stream, and for the query stream, None without targets.

    shape (B, T, S): T tokens in each of B samples, behind S - T of memory.                          Yang et al. 2019, sec. 2.3
    band (T, S) booleans: what a token may see at all; attention_mask (B, T), 0 = padding, or input_mask (B, T), 1 = padding;
    perm_mask (B, T, T), 1 where token i may not attend to token j; target_mapping (B, M, T), a one in each row where the target
    stands (a row of zeros is no target, and sees nothing); token_type_ids (B, T), segments; the memory is of segment 0.

    A token sees what no mask hides, and always itself and all of the memory that the band allows.  A target sees what the token
    in its place sees, without that token where perm_mask hides it from itself.  Where that is nothing, attention gives zeros
    (transformers an average over all, the target's own token too); of several targets in one place each has an answer of its own
    (transformers adds up their queries).
    """
    if not isinstance(shape, tuple) or len(shape) != 3 or not all(is_whole(n) and n >= 0 for n in shape) or shape[1] > shape[2]:
        raise wrong("shape", "(B, T, S) with T <= S", shape)
    B, T, S = shape
    check_array("band", band, "(T, S) booleans or None", T=T, S=S)
    check_array("attention_mask", attention_mask, "(B, T) numbers or None", B=B, T=T)
    check_array("input_mask", input_mask, "(B, T) numbers or None", B=B, T=T)
    check_array("perm_mask", perm_mask, "(B, T, T) numbers or None", B=B, T=T)
    check_array("target_mapping", target_mapping, "(B, M, T) numbers or None", B=B, T=T)
    check_array("token_type_ids", token_type_ids, "(B, T) integers or None", B=B, T=T)
    check_module("xp", xp)
    _check(B, T, attention_mask, input_mask, target_mapping)
    if input_mask is not None:
        attention_mask = input_mask == 0
    seen = combine_masks(None if attention_mask is None else (attention_mask != 0)[:, None, :],
                         None if perm_mask is None else perm_mask == 0)  # fmt: skip
    if seen is not None:
        seen = xp.concatenate([xp.ones((*seen.shape[:2], S - T), dtype=bool), seen], axis=-1)
    seen = combine_masks(seen, None if band is None else band[None])  # (B or 1, T or 1, S)
    content = {"mask": None, "different": None}
    if seen is not None:
        own = xp.arange(S - T, S)[:, None] == xp.arange(S)
        content["mask"] = (seen | own)[:, None]
    if token_type_ids is not None:
        memory = xp.zeros((B, S - T), dtype=token_type_ids.dtype)
        content["different"] = token_type_ids[:, :, None] != xp.concatenate([memory, token_type_ids], axis=1)[:, None, :]
    if target_mapping is None:
        return content, None

    places, samples = target_mapping.argmax(axis=-1), xp.arange(B)[:, None]
    query = {"mask": (target_mapping != 0).any(axis=-1)[:, None, :, None], "different": None, "places": places}
    if seen is not None:
        query["mask"] = query["mask"] & xp.broadcast_to(seen, (B, T, S))[samples, places][:, None]
    if token_type_ids is not None:
        query["different"] = content["different"][samples, places]
    return content, query


def _check(B, T, attention_mask, input_mask, target_mapping):
    if attention_mask is not None and input_mask is not None:
        raise ValueError("attention_mask and input_mask say the same, expected at most one of them")
    if target_mapping is None:
        return
    if target_mapping.shape[1] == 0:
        raise ValueError(f"target_mapping: expected shape ({B}, M, {T}) with M >= 1, got {target_mapping.shape}")
    if is_host(target_mapping):  # on a GPU this check would wait for the device
        bad = (target_mapping != 0) & ((target_mapping != 1) | (target_mapping.sum(axis=-1, keepdims=True) != 1))
        if bad.any():
            raise ValueError("target_mapping: expected zeros, and in each row a one at most")
