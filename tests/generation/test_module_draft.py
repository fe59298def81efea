"""A model's own modules for later tokens as its draft: their proposals, greedy texts, batches, samples, ends, devices."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.generation.test_speculative import SETTINGS, surprise
from tests.laws import MODEL
from tests.support.families import tiny
from tests.support.generation import EVERYTHING, PROMPTS, assert_same, full_pass, ids_of
from tests.support.later_tokens import later
from tinyplm.core import flatten, unflatten
from tinyplm.generation import DraftStatistics, generate, module_draft
from tinyplm.generation.module_draft import ModuleDraft
from tinyplm.models.multi_token import module

LONG = [2, 7, 1, 8, 2, 8, 1, 8, 2, 8]
model_of = functools.partial(later, max_position_embeddings=60)


@functools.cache
def livelier(modules, **changes):
    """A model whose greedy texts of the three prompts accept the most proposals, of a few seeds."""

    def accepted(model):
        counts = DraftStatistics()
        generate(model, PROMPTS, max_new_tokens=20, temperature=0, draft="modules", statistics=counts)
        return counts.accepted

    return max((model_of(modules, seed=seed, **changes) for seed in range(4)), key=accepted)


def knowing(modules, **changes):
    """A model whose next token depends on the last alone, as do its modules': they have nothing but norms and the table.

    Wproj = [0, 1], and no sublayer adds anything, so module k gives norm(norm(token)) and the model norm(token).
    """
    model = model_of(modules, **changes)
    flat = {path: 0 * a if path.endswith((".Wo", ".Wdown")) else a for path, a in flatten(model.params).items()}
    D = model.config.hidden_size
    for path in flat:
        if path.endswith("Wproj"):
            flat[path] = np.concatenate([np.zeros((D, D)), np.eye(D)])
        if path.startswith("body.multi_token") and path.endswith("embed_norm"):
            flat[path] = np.ones(D)
        if path.startswith("body.multi_token") and path.endswith(".norm.gamma"):
            flat[path] = flat["body.norm.gamma"]
    model.params = unflatten(flat, model.params)
    return model


# -------------------------------------------------------------------------------------------------------------- proposals


def full_proposals(model, text, proposed):
    """The logits before each proposal, without caches; text: its ids, proposed: what the draft proposed one after the other."""
    p, made = model.params["body"], model.family.pieces(model.config, **model.buffers)
    (n, m), found = (len(p["multi_token"]), len(text)), []
    W = model.family.output_matrix(model.params, config=model.config)[0]
    outputs = model([[*text, *proposed]], grad=False)[0]  # a place sees no later one, so one pass has the states of all steps
    states = h = outputs["hidden"][:, : m - 1]
    for step in range(len(proposed)):
        ids = [*text, *proposed[:step]]
        if step < n:
            states, h = h, outputs["later_hidden"][:, : m - 1, step]
        else:
            states = np.concatenate([states, h[:, -1:]], axis=1)
            embeds = p["tokens"][np.array([ids[n:]])]
            places = {"position_ids": np.arange(len(ids) - n), "layer": model.config.num_hidden_layers + n - 1}
            h = module(made, p["multi_token"][-1], states, embeds, eps=model.config.rms_norm_eps, **places)[0]["hidden"]
        found.append(h[0, -1] @ W)
    return found


@pytest.fixture
def rounds(monkeypatch):
    """What was proposed: in each round for each text (ids, proposals, the distributions that they were drawn from)."""
    seen = []

    def propose(self, counts, generators, propose=ModuleDraft.propose):
        texts = [list(text) for text in self.texts]
        assert self.unread <= max(len(self.modules), self.longest + 1), "more than a round leaves"
        found = propose(self, counts, generators)
        seen.append([(text, found.tokens[n], [q[n] for q in found.probabilities]) for n, text in enumerate(texts)])
        return found

    monkeypatch.setattr(ModuleDraft, "propose", propose)
    return seen


@pytest.mark.parametrize("options", [{}, {"tie_word_embeddings": True, "rope_interleave": False, "q_lora_rank": None}])
@pytest.mark.parametrize("draft_length", [1, 2, 3, 6])
@pytest.mark.parametrize("modules", [1, 2, 3])
def test_proposals_are_those_of_whole_passes(rounds, modules, draft_length, options):
    """In every round, also after some texts have accepted more than others."""
    model, counts = livelier(modules, **options), DraftStatistics()
    limits = {"max_new_tokens": 12, "samples": 2, "temperature": 0.8, "seed": 3}
    rounds.clear()  # those of `livelier`
    generate(model, [*PROMPTS, LONG], draft="modules", draft_length=draft_length, statistics=counts, **limits)
    assert 0 < counts.accepted < counts.checked
    assert_whole(model, rounds, 0.8)
    lengths = [len(tokens) for texts in rounds for _, tokens, _ in texts]
    assert max(lengths) == draft_length and sum(lengths) == counts.proposed


def assert_whole(model, rounds, temperature):
    for text, tokens, distributions in (found for texts in rounds for found in texts):
        for logits, q in zip(full_proposals(model, text, tokens), distributions):
            expected = np.exp((logits - logits.max()) / temperature)
            assert np.max(np.abs(q - expected / expected.sum())) < MODEL


def test_proposals_after_rounds_in_which_not_all_modules_proposed(rounds):
    """Stop tokens end the proposals, and the target refuses them: those modules are asked again later."""
    model, fewer = knowing(3), 0
    flat = flatten(model.params)
    rng = np.random.default_rng(0)
    for path in flat:  # they know less, and more of the places before
        if path.startswith("body.multi_token"):
            flat[path] = flat[path] + rng.normal(0, 0.3, flat[path].shape)
    model.params = unflatten(flat, model.params)
    for seed in range(12):
        options = {"stop_ids": [0, 1, 2], "max_new_tokens": 20, "temperature": 0.7, "seed": seed}
        generate(model, [LONG, [4, 5]], draft="modules", draft_length=3, **options)
        most = [max(len(tokens) for _, tokens, _ in texts) for texts in rounds]
        fewer += any(a < 3 <= b for a, b in zip(most, most[1:]))
        assert_whole(model, rounds, 0.7)
        rounds.clear()
    assert fewer > 2


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.3, "seed": 5}])
@pytest.mark.parametrize("draft_length", [1, 2, 5])
@pytest.mark.parametrize("modules", [1, 2])
def test_modules_that_know_the_next_tokens_are_accepted(modules, draft_length, options):
    """All of their proposals; a pass then gives draft_length + 1 tokens, which end with the text after 31."""
    model, counts = knowing(modules, rms_norm_eps=1e-12), DraftStatistics()
    limits = {"max_new_tokens": 31, "samples": 2, "stop_ids": (), "draft_length": draft_length}
    generate(model, PROMPTS, draft="modules", statistics=counts, **limits, **options)
    assert counts.acceptance_rate == 1 and counts.accepted == counts.checked == counts.proposed
    assert counts.tokens == 6 * 30 and counts.tokens_per_pass == draft_length + 1


def test_a_prompt_is_read_once_and_later_each_module_reads_few_places(monkeypatch):
    model, shapes = model_of(2), []

    def counted(pieces, p, hidden, embeds, **options):
        shapes.append(hidden.shape[:2])
        return module(pieces, p, hidden, embeds, **options)

    monkeypatch.setattr(module_draft, "module", counted)
    generate(model, [LONG, LONG[:6]], max_new_tokens=20, samples=3, draft="modules", draft_length=3)
    assert shapes[:5] == [(2, 8), (2, 8), (6, 2), (6, 2), (6, 1)] and max(T for _, T in shapes[2:]) <= 4


# ----------------------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize("draft_length", [1, 2, 3, 20])
@pytest.mark.parametrize("modules", [1, 2])
def test_greedy_texts_are_those_without_a_draft(modules, draft_length):
    """In a left-padded batch and alone, samples of one prompt; each text has its own accepted tokens."""
    model = livelier(modules)
    prompts, options = [*PROMPTS, LONG], {"max_new_tokens": 24, "temperature": 0}
    expected, counts = generate(model, prompts, **options), DraftStatistics()
    options |= {"draft": "modules", "draft_length": draft_length}
    assert_same(generate(model, prompts, statistics=counts, **options), expected)
    assert 0 < counts.accepted < counts.checked <= counts.proposed
    assert counts.tokens == 4 * 23 == counts.passes + counts.accepted
    for n, prompt in enumerate(prompts):
        assert ids_of(generate(model, prompt, samples=3, **options)) == 3 * [expected[n].ids]


@pytest.mark.parametrize("tokens", [1, 2, 3, 6, 20])
@pytest.mark.parametrize("prompts", [PROMPTS, [LONG, [4]]])
@pytest.mark.parametrize("model", [livelier, knowing])
def test_up_to_the_context_and_beyond(model, prompts, tokens):
    """A context of 12; beyond it, and without a cache, nothing is proposed."""
    model, counts = model(2, max_position_embeddings=12), DraftStatistics()
    options = {"max_new_tokens": tokens, "temperature": 0}
    expected = generate(model, prompts, **options)
    assert_same(generate(model, prompts, draft="modules", draft_length=3, statistics=counts, **options), expected)
    assert (counts.proposed > 0) == (tokens > 2)
    counts = DraftStatistics()
    assert_same(generate(model, prompts, draft="modules", cached=False, statistics=counts, **options), expected)
    assert counts.proposed == 0 and counts.passes == counts.tokens


@pytest.mark.parametrize("place", range(1, 9))
def test_a_stop_token_within_an_accepted_run_ends_the_text(place):
    model = knowing(2, seed=4)
    [free] = generate(model, [4], max_new_tokens=12, temperature=0, stop_ids=())
    options = {"max_new_tokens": 12, "temperature": 0, "stop_ids": [free.ids[place]]}
    expected = generate(model, [[4], [1, 5]], **options)
    assert_same(generate(model, [[4], [1, 5]], draft="modules", draft_length=5, **options), expected)
    assert expected[0].finished == "stop"


@pytest.mark.parametrize("options", [{}, EVERYTHING, {"stop_ids": [3, 8]}, {"no_repeat_ngram": 1, "stop_ids": [0]}])
def test_a_sample_depends_on_its_prompt_and_number_alone(options):
    """Not on the other texts of its batch, whatever their lengths, ends and accepted tokens."""
    model, tokens = livelier(2), 6 if "no_repeat_ngram" in options and "stop_ids" in options else 20
    options = {"max_new_tokens": tokens, "draft": "modules", "draft_length": 3, "seed": 4, **options}
    together = generate(model, PROMPTS, samples=3, **options)
    for n, prompt in enumerate(PROMPTS):
        assert_same(together[3 * n : 3 * n + 3], generate(model, prompt, samples=3, first_prompt=n, **options))
        assert_same(together[3 * n : 3 * n + 1], generate(model, prompt, first_prompt=n, **options))
    assert_same(together, generate(model.for_decoding(), PROMPTS, samples=3, **options))
    for text in together[::4]:
        for n, (token, log_p) in enumerate(zip(text.ids, text.log_probabilities)):
            assert abs(full_pass(model, [*PROMPTS[text.prompt], *text.ids[:n]])[token] - log_p) < MODEL


@pytest.mark.parametrize("name", ["hot", "everything"])
@pytest.mark.parametrize("draft_length", [1, 2])
def test_samples_follow_the_models_distribution(name, draft_length):
    assert surprise("modules", SETTINGS[name], draft_length=draft_length, target=livelier(1)) > 1e-4


# -------------------------------------------------------------------------------------------------------- devices, errors


def test_it_runs_on_devices(device):
    model = livelier(2)
    for options in ({"temperature": 0}, {"samples": 2, "stop_ids": [3]}):
        options = {"max_new_tokens": 16, "seed": 2, "draft": "modules", "draft_length": 3, **options}
        assert_same(generate(model.to(device), PROMPTS, **options), generate(model, PROMPTS, **options))


def test_a_model_without_modules_is_refused():
    other = 'a model of the task "multi_token_lm" with at least one module'
    for model in (tiny("gpt2"), tiny("deepseek_v3")):
        with pytest.raises(ValueError, match="^draft: expected .*, got 'modules'$") as error:
            generate(model, [1], max_new_tokens=3, draft="modules")
        assert other in str(error.value)
    with pytest.raises(ValueError, match="^draft: expected a model, .*, got 'module'$"):
        generate(later(1), [1], max_new_tokens=3, draft="module")
