"""What the two streams of XLNet see: masks in our convention, segments and places, from the inputs in the hub's."""

from __future__ import annotations

from typing import Any

from .mask import combine_masks


def stream_views(shape: tuple[int, int, int], *, band=None, attention_mask=None, perm_mask=None, target_mapping=None,
                 token_type_ids=None, xp: Any) -> tuple[dict, dict | None]:  # fmt: skip
    """What `relative_attention` takes for the content stream, and for the query stream, None without targets.

    shape (B, T, S): T tokens in each of B samples behind S - T of memory.  Yang et al. 2019, sec. 2.3 (fig. 1)
    band (T, S) booleans: what a token may see at all; attention_mask (B, T), 0 = padding; perm_mask (B, T, T), 1 where token i
    may not attend to token j; target_mapping (B, M, T), a one in each row where the target stands (a row of zeros: no target, and
    nothing is seen); token_type_ids (B, T) segments, memory having segment 0.

    A token sees what no mask hides, and always itself and all of the memory that the band allows.  A target sees what the token
    in its place sees, without that token where perm_mask hides it from itself.
    """
    B, T, S = shape
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
