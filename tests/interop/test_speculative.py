# ruff: noqa: E402 - imports follow importorskip
"""Greedy decoding with a draft against transformers' assisted generation: the ids, and what each round accepts."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.generation.candidate_generator import AssistedCandidateGenerator

from tests.interop.pair import as_torch, pair, peer, with_ours
from tinyplm.generation import DraftStatistics, generate

pytestmark = pytest.mark.usefixtures("in_float64")

MODELS = {
    "gpt2": ("gpt2", {"n_positions": 60}),
    "llama": ("llama", {"max_position_embeddings": 60}),
    "qwen2, no window": ("qwen2", {"max_position_embeddings": 60, "use_sliding_window": False}),
    "bloom": ("bloom", {"tie_word_embeddings": False}),
}
# For the others, assisted generation writes the same ids but accepts fewer proposals than its models' own full passes would.
SAME_ROUNDS = ("gpt2", "bloom")
PROMPTS = [np.random.default_rng(n).integers(0, 41, n).tolist() for n in (3, 7)]
TOKENS = 30


@pytest.fixture
def accepted(monkeypatch):
    """The accepted proposals of each round of transformers."""
    found = []

    def update(self, input_ids, scores, num_matches):
        found.append(int(num_matches))

    monkeypatch.setattr(AssistedCandidateGenerator, "update_candidate_strategy", update)
    return found


def by_full_passes(theirs, draft, text, new, draft_length):
    """(ids, accepted proposals of each round) by the definition, from transformers' logits without a cache."""
    ids, found = list(text), []

    def greedy(model, ids):
        with torch.no_grad():
            return int(model(torch.tensor([ids])).logits[0, -1].argmax())

    while (room := len(text) + new - len(ids)) > 0:
        run = []
        while len(run) < min(draft_length, room - 1):
            run.append(greedy(draft, ids + run))
        found.append(0)
        while found[-1] < len(run) and greedy(theirs, ids) == run[found[-1]]:
            ids.append(run[found[-1]])
            found[-1] += 1
        ids.append(greedy(theirs, ids))
    return ids, found


@pytest.mark.parametrize("draft_length", [1, 3, 6])
@pytest.mark.parametrize("name", MODELS)
def test_ids_and_accepted_proposals(tmp_path, accepted, name, draft_length):
    """The draft is the target with noise on its parameters, which agrees with it now and then.

    Their first round begins with the prompt, ours after the first token: so theirs gets a prompt that is longer by it.
    """
    family, changes = MODELS[name]
    theirs, ours = pair(family, tmp_path / "target", **changes)
    their_draft = peer(family, **changes)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in their_draft.parameters():
            parameter += 0.2 * parameter.std() * torch.randn(parameter.shape)
    their_draft, our_draft = with_ours(their_draft, tmp_path / "draft")
    their_draft.generation_config.num_assistant_tokens = draft_length
    their_draft.generation_config.num_assistant_tokens_schedule = "constant"
    their_draft.generation_config.assistant_confidence_threshold = 0.0
    total = DraftStatistics()
    for prompt in PROMPTS:
        counts = DraftStatistics()
        options = {"max_new_tokens": TOKENS, "temperature": 0, "stop_ids": ()}
        [text] = generate(ours, prompt, draft=our_draft, draft_length=draft_length, statistics=counts, **options)
        accepted.clear()
        begun = np.array([[*prompt, text.ids[0]]])
        out = theirs.generate(**as_torch(inputs=begun, attention_mask=np.ones_like(begun)), do_sample=False, pad_token_id=0,
                              max_new_tokens=TOKENS - 1, assistant_model=their_draft, eos_token_id=None)  # fmt: skip
        assert out[0, len(prompt) :].tolist() == text.ids
        ids, rounds = by_full_passes(theirs, their_draft, begun[0].tolist(), TOKENS - 1, draft_length)
        assert ids[len(prompt) :] == text.ids
        assert sum(rounds) == counts.accepted and len(rounds) == counts.passes
        if name in SAME_ROUNDS:
            assert accepted == rounds
        total.accepted, total.checked = total.accepted + counts.accepted, total.checked + counts.checked
    assert 0.1 < total.acceptance_rate < 0.95
