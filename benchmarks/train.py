"""A training step of GPT-2 against PyTorch eager at its best, side by side: forward, loss, backward, clipping, AdamW.

    python benchmarks/train.py                 # the default model of examples/pretrain.py and two larger ones
    python benchmarks/train.py --rounds 20 --shape 4,256,4,128,16,2048

Each library runs in a process of its own with all cores; the two take turns, one step each, so that a change of the machine's
speed hits both.  PyTorch uses scaled_dot_product_attention, fused AdamW, clip_grad_norm_ and the same allocator settings.
Printed: medians, their ratio, peak memory above what was used before the model was made, and each library's matmul peak.
"""

from __future__ import annotations

import argparse
import os
import statistics

from turns import matmul_peak, median_ratio, peak_memory, serve, take_turns

# layers, width, heads, context, batch, vocabulary
SHAPES = ["2,256,4,64,8,1024", "4,256,4,128,16,2048", "6,384,6,256,8,4096"]
LEARNING_RATE, DECAY, CLIP = 1e-3, 0.1, 1.0


def tinyplm_step(shape: list[int], workers: int):
    """A function that does one step, and this library's matmul peak."""
    import numpy as np

    import tinyplm
    from tinyplm.backend import keep_freed_memory
    from tinyplm.optim.adamw import AdamW
    from tinyplm.training.settings import Settings
    from tinyplm.training.step import update

    keep_freed_memory()
    rng = np.random.default_rng(0)
    peak = matmul_peak(np.matmul, rng.random((1024, 1024), dtype=np.float32))
    L, D, H, T, B, V = shape
    before = peak_memory()
    model = tinyplm.create("gpt2", n_layer=L, n_embd=D, n_head=H, n_positions=T, vocab_size=V, resid_pdrop=0.0, embd_pdrop=0.0,
                           attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)  # fmt: skip
    optimizer = AdamW(model.params, weight_decay=DECAY)
    model.params = optimizer.params
    settings = Settings(batch_size=B, sequence_length=T, learning_rate=LEARNING_RATE, schedule="constant", warmup=0, clip=CLIP,
                        workers=workers)  # fmt: skip
    inputs, targets = rng.integers(0, V, (2, B, T))
    return lambda: float(update(model, optimizer, inputs, targets, settings=settings, step=0)[0]), peak, before


def torch_step(shape: list[int]):
    """The same model and step in PyTorch eager."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    from tinyplm.backend import keep_freed_memory

    keep_freed_memory()
    torch.manual_seed(0)
    peak = matmul_peak(torch.matmul, torch.rand(1024, 1024))
    L, D, H, T, B, V = shape
    before = peak_memory()

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
            self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
            self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

        def forward(self, x):
            q, k, v = (a.view(*x.shape[:2], H, D // H).transpose(1, 2) for a in self.qkv(self.norm1(x)).split(D, dim=-1))
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(o.transpose(1, 2).reshape(x.shape))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(V, D), nn.Embedding(T, D)
            self.layers, self.norm = nn.ModuleList(Block() for _ in range(L)), nn.LayerNorm(D)

        def forward(self, ids):
            x = self.tokens(ids) + self.positions.weight
            for layer in self.layers:
                x = layer(x)
            return F.linear(self.norm(x), self.tokens.weight)

    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=DECAY, fused=True)
    inputs, targets = torch.randint(0, V, (2, B, T))

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(inputs).view(-1, V), targets.view(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return step, peak, before


def compare(shape: list[int], rounds: int, workers: int) -> str:
    """One row of the table."""
    arguments = ["--shape", ",".join(map(str, shape)), "--workers", str(workers)]
    results = take_turns(__file__, ("tinyplm", "torch"), arguments, rounds)
    (peak, seconds, memory), (peer_peak, peer_seconds, peer_memory) = results["tinyplm"], results["torch"]
    times = f"{1e3 * statistics.median(seconds):>9.1f}{1e3 * statistics.median(peer_seconds):>10.1f}"
    ratio = f"{median_ratio(peer_seconds, seconds):>8.2f}"
    return f"{str(tuple(shape)):<28}{times}{ratio}{memory:>9.0f}{peer_memory:>8.0f}{peak:>9.0f}{peer_peak:>8.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", action="append", help="layers,width,heads,context,batch,vocabulary; may be repeated")
    parser.add_argument("--rounds", type=int, default=15, help="steps of each library (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads of tinyplm (default: %(default)s)")
    parser.add_argument("--serve", choices=["tinyplm", "torch"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    shapes = [[int(n) for n in shape.split(",")] for shape in options.shape or SHAPES]
    if options.serve:
        work = tinyplm_step(shapes[0], options.workers) if options.serve == "tinyplm" else torch_step(shapes[0])
        serve(*work)
        return
    print("milliseconds a step (medians), memory in MiB (peak above what was used before), matmul peak in GFLOP/s")
    print(f"{'(L, D, H, T, B, V)':<28}{'tinyplm':>9}{'PyTorch':>10}{'ratio':>8}{'memory':>9}{'':>8}{'peak':>9}")
    print(f"{'':<28}{'':>9}{'':>10}{'':>8}{'tinyplm':>9}{'PyTorch':>8}{'NumPy':>9}{'PyTorch':>8}")
    for shape in shapes:
        print(compare(shape, options.rounds, options.workers), flush=True)


if __name__ == "__main__":
    main()
