"""A training step of the same model in tinyplm and in PyTorch, shared by the benchmarks.

A shape is (L, D, H, T, B, V): layers, width, heads, context, batch, vocabulary.  The heads are
tied; LLaMA's MLP has width 8/3 D.  BERT is trained as a masked language model: 15% of the positions
have a target, and the second half of each row is segment 1.  T5 has L layers on each side, T tokens
in the source and T / 2 in the target.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from turns import matmul_peak, memory_before

FAMILIES = ("gpt2", "llama", "bert", "t5")
MASKED = 0.15  # the share of BERT's positions with a target
IGNORED = -100  # the target of the others
LEARNING_RATE, DECAY, CLIP = 1e-3, 0.1, 1.0
SMALL = [2, 64, 2, 16, 4, 101]  # for checks, and to load each library before measuring memory


def read_shape(text: str) -> list[int]:
    try:
        shape = [int(n) for n in text.split(",")]
    except ValueError:
        shape = []
    if len(shape) != 6 or min(shape) < 1 or shape[1] % shape[2]:
        raise ValueError(
            "--shape: expected layers,width,heads,context,batch,vocabulary "
            f"with the width a multiple of the heads, got {text!r}"
        )
    return shape


def feed_forward(D: int) -> int:
    """LLaMA's F: 8/3 of the width, rounded up to a multiple of 16, as in `tinyplm pretrain`."""
    return -(-8 * D // 3 // 16) * 16


def config_fields(family: str, L: int, D: int, H: int, T: int, V: int) -> dict:
    """The fields of the family's config.json, without dropout."""
    if family == "bert":
        return {
            "num_hidden_layers": L,
            "hidden_size": D,
            "num_attention_heads": H,
            "intermediate_size": 4 * D,
            "vocab_size": V,
            "max_position_embeddings": T,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
    if family == "t5":
        return {
            "num_layers": L,
            "d_model": D,
            "num_heads": H,
            "d_kv": D // H,
            "d_ff": 4 * D,
            "vocab_size": V,
            "dropout_rate": 0.0,
        }
    if family == "gpt2":
        sizes = {"n_layer": L, "n_embd": D, "n_head": H, "n_positions": T}
        sizes |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    else:
        sizes = {
            "num_hidden_layers": L,
            "hidden_size": D,
            "num_attention_heads": H,
            "intermediate_size": feed_forward(D),
            "max_position_embeddings": T,
            "tie_word_embeddings": True,
        }
    return {**sizes, "vocab_size": V, "bos_token_id": None, "eos_token_id": None}


def batch(family: str, shape: list[int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs by name, and targets, each (B, T); T5's targets are (B, T / 2)."""
    T, B, V = shape[3:]
    rng = np.random.default_rng(0)
    ids, targets = rng.integers(0, V, (2, B, T))
    if family == "t5":
        from tinyplm.core.shift import shift_right

        targets = targets[:, : T // 2]
        return {"input_ids": ids, "decoder_input_ids": shift_right(targets, 0, 0)}, targets
    if family != "bert":
        return {"input_ids": ids}, targets
    segments = np.broadcast_to(np.arange(T) >= T // 2, (B, T)).astype("int64")
    return {"input_ids": ids, "token_type_ids": segments}, np.where(
        rng.random((B, T)) < MASKED, targets, IGNORED
    )


def create(family: str, shape: list[int]):
    import tinyplm

    L, D, H, T, _, V = shape
    return tinyplm.create(family, **config_fields(family, L, D, H, T, V))


def peer(
    family: str,
    shape: list[int],
    checkpointing: bool = False,
    chunked: bool = False,
    all_places: bool = False,
):
    """The model in PyTorch."""
    if family == "bert":
        from peer_bert import Bert

        return Bert(shape, checkpointing, chunked, all_places)
    if family == "t5":
        from peer_t5 import T5

        return T5(shape, checkpointing)
    from peer import Model

    return Model(family, shape, checkpointing, chunked)


def tinyplm_step(
    family: str, model, shape: list[int], workers: int, checkpointing: int = 0
) -> Callable[[], float]:
    """A function that takes one step and returns the loss.  Its optimizer owns model.params."""
    from tinyplm.memory import give_back_freed_memory
    from tinyplm.optim.adamw import AdamW
    from tinyplm.training.settings import Settings
    from tinyplm.training.step import update

    optimizer = AdamW(model.params, weight_decay=DECAY)
    model.params = optimizer.params
    give_back_freed_memory()  # as training.loop does
    settings = Settings(
        batch_size=shape[4],
        sequence_length=shape[3],
        learning_rate=LEARNING_RATE,
        schedule="constant",
        warmup=0,
        clip=CLIP,
        checkpointing=checkpointing,
        workers=workers,
    )
    inputs, targets = batch(family, shape)
    return lambda: float(update(model, optimizer, inputs, targets, settings=settings, step=0)[0])


def torch_step(family: str, model, shape: list[int], compiled: bool = False) -> Callable[[], float]:
    """The same in PyTorch: fused AdamW, decaying the same matrices, and clip_grad_norm_."""
    import torch

    tables = ("tokens.weight", "positions.weight", "segments.weight", "table.weight")
    decayed = [
        p for name, p in model.named_parameters() if p.ndim > 1 and not name.endswith(tables)
    ]
    others = [p for p in model.parameters() if all(p is not d for d in decayed)]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
    inputs, targets = batch(family, shape)
    inputs, targets = (
        {name: torch.from_numpy(a) for name, a in inputs.items()},
        torch.from_numpy(targets),
    )
    loss_of = torch.compile(model.loss) if compiled else model.loss

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return step


def tinyplm_work(family: str, shape: list[int], workers: int, checkpointing: int = 0):
    """Arguments for turns.serve: the step, NumPy's matmul peak, the memory before."""
    from tinyplm.memory import keep_freed_memory

    keep_freed_memory()
    peak = matmul_peak(np.matmul, np.random.default_rng(0).random((1024, 1024), dtype=np.float32))
    tinyplm_step(family, create(family, SMALL), SMALL, workers)()
    before = memory_before()
    return tinyplm_step(family, create(family, shape), shape, workers, checkpointing), peak, before


def torch_work(family: str, shape: list[int], compiled: bool = False, **options: bool):
    """The same for PyTorch.  options: see `peer`."""
    import torch

    from tinyplm.memory import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    peak = matmul_peak(torch.matmul, torch.rand(1024, 1024))
    torch_step(family, peer(family, SMALL), SMALL)()
    before = memory_before()
    return torch_step(family, peer(family, shape, **options), shape, compiled), peak, before


def disagreement(family: str, shape: list[int], workers: int) -> float:
    """The largest relative difference of the first three losses, training from the same weights."""
    ours, theirs = create(family, shape), peer(family, shape)
    theirs.copy(ours.params)
    steps = tinyplm_step(family, ours, shape, workers), torch_step(family, theirs, shape)
    return max(abs(a - b) / b for a, b in ([step() for step in steps] for _ in range(3)))


def flops(family: str, shape: list[int]) -> float:
    """FLOPs of one step, as tinyplm.scaling counts them; BERT's head only at masked places."""
    from tinyplm.families import family as find_family
    from tinyplm.scaling import training_flops

    L, D, H, T, B, V = shape
    module = find_family(family)
    config = module.Config(**config_fields(family, L, D, H, T, V))
    sizes = {"batch": B, "length": T}
    if family == "t5":
        sizes["target"] = T // 2
    return training_flops(
        module, config, **sizes, predicted=MASKED * T if family == "bert" else None
    )
