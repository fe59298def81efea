"""Speculative decoding: a draft proposes several tokens, the target checks them all in one pass.

Leviathan et al. 2023, algorithm 1; Chen et al. 2023, algorithm 2.  A token x proposed from q is
accepted with probability min(1, p(x) / q(x)), p being the target's distribution at this place.  The
first that is not is replaced by a draw from max(0, p - q) / sum max(0, p - q), and the others are
discarded; after g accepted ones the same pass gives one more token from p.  So each token follows p
exactly, whatever the draft proposes:

    q(x) min(1, p(x) / q(x)) + (1 - sum min(p, q)) max(0, p(x) - q(x)) / sum max(0, p - q)
        = min(p(x), q(x)) + max(0, p(x) - q(x)) = p(x),   as 1 - sum min(p, q) = sum max(0, p - q).

Both are distributions after the sampling settings.  At temperature 0 they have all mass on one
token, which gives greedy decoding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, cast

import numpy as np

from ..arguments import MOST, check_number, check_whole, mismatch, wrong
from ..models.causal_model import CausalModel
from ..models.model import Model, check_decoder
from ..models.multi_token_model import MultiTokenModel
from ..models.seq2seq_model import Seq2SeqModel
from .module_draft import ModuleDraft
from .pieces import Piece, Writer
from .proposals import DraftModel, Proposals, Proposer, Rules, longest_draft, spare_places
from .rewriting import Rewritable
from .sampling import Sampling, chosen_log_probabilities, inverted
from .settings import GenerationSettings, stops_of
from .state import check_prompts

Draft = Model | Literal["modules"]  # the target's own modules for later tokens


@dataclasses.dataclass
class DraftStatistics:
    """What `generate` and `stream` count while a draft proposes, over all texts and calls.

    A text's first token comes from the pass that reads its prompt, which does not count.
    """

    proposed: int = 0  # tokens of the draft
    checked: int = 0  # of these, up to the first that the target refused, or to the text's end
    accepted: int = 0
    tokens: int = 0  # written, by either
    passes: int = 0  # of the target, those of each text counted

    @property
    def acceptance_rate(self) -> float:
        """accepted / checked, the alpha of Leviathan et al. 2023; NaN before any was checked."""
        return self.accepted / self.checked if self.checked else float("nan")

    @property
    def tokens_per_pass(self) -> float:
        """Tokens for each pass of the target, 1 in plain decoding; NaN before the first."""
        return self.tokens / self.passes if self.passes else float("nan")


def expected_tokens(acceptance_rate: float, draft_length: int) -> float:
    """(1 - a^(g+1)) / (1 - a), the expected tokens per pass.       Leviathan et al. 2023, eq. 1

    a: the probability that a proposal is accepted, the same for all; g = draft_length.
    """
    check_number("acceptance_rate", acceptance_rate, least=0, most=1)
    check_whole("draft_length", draft_length, 0, MOST)
    if acceptance_rate == 1:
        return draft_length + 1.0
    return (1 - acceptance_rate ** (draft_length + 1)) / (1 - acceptance_rate)


def accepts(p: float, q: float, u: float) -> bool:
    """Whether a proposal is accepted: with probability min(1, p / q) for u uniform in [0, 1)."""
    return u * q < p


def residual(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """max(0, p - q) / sum max(0, p - q): (V,), (V,) -> (V,), where a proposal was not accepted.

    p itself where they are equal, so that only rounding can ask for it.
    """
    rest = np.maximum(p - q, 0)
    total = rest.sum()
    return rest / total if total > 0 else p


@dataclasses.dataclass
class Verdict:
    """The next tokens of one text: accepted proposals, then usually one of the target's own."""

    tokens: list[int] = dataclasses.field(default_factory=list)
    log_probabilities: list[float] = dataclasses.field(default_factory=list)
    checked: int = 0
    accepted: int = 0


def judge(
    logits: np.ndarray,
    texts: Sequence[Sequence[int]],
    proposals: Proposals,
    generators: Sequence[np.random.Generator],
    rules: Rules,
) -> list[Verdict]:
    """The target's verdict on the proposals for each text, up to the first stop token.

    logits (rows, G + 1, V): after the text and after each of its proposals.
    """
    verdicts = [Verdict() for _ in texts]
    going = list(range(len(texts)))
    for step in range(logits.shape[1]):
        if not going:
            break
        scores, sampling = logits[going, step], rules.sampling
        before: list[tuple[int, ...]] = []
        if sampling.reads_texts:
            before = [(*texts[n], *proposals.tokens[n][:step]) for n in going]
        ps = sampling.probabilities(sampling.penalised(scores, before, rules.vocabulary))
        accepted = []
        for n, p in zip(going, ps):
            verdict, proposed, u = verdicts[n], proposals.tokens[n], rules.uniform(generators[n])
            if step < len(proposed):
                token, q = proposed[step], proposals.probabilities[step][n]
                verdict.checked += 1
                if accepts(p[token], q[token], u):
                    verdict.accepted += 1
                    verdict.tokens.append(token)
                    accepted.append(n)
                    continue
                p, u = residual(p, q), rules.uniform(generators[n])
            verdict.tokens.append(int(inverted(p[None], np.array([u]))[0]))
        last = np.array([verdicts[n].tokens[-1] for n in going])
        for n, log_p in zip(going, chosen_log_probabilities(scores, last).tolist()):
            verdicts[n].log_probabilities.append(log_p)
        going = [n for n in accepted if verdicts[n].tokens[-1] not in rules.stops]
    return verdicts


def check_draft(model: Model, draft: Draft, settings: GenerationSettings) -> None:
    """ValueError unless the draft can propose for this model: its modules, or a decoder with the
    same tokens."""
    if isinstance(model, Seq2SeqModel):
        raise wrong("draft", "None for an encoder-decoder", draft)
    if isinstance(draft, str) and draft == "modules":
        return _check_modules(model, draft)
    check_decoder("draft", draft)
    most = settings.ids_below(model) or MOST
    sizes = [min(most, m.config.vocab_size) for m in (model, draft)]
    if sizes[0] != sizes[1]:
        raise mismatch("draft", f"a model of the target's {sizes[0]} tokens", f"one of {sizes[1]}")
    ours, theirs = model.tokenizer, draft.tokenizer
    if ours is None or theirs is None or ours is theirs:
        return
    if ours.vocab_size != theirs.vocab_size:
        raise mismatch("draft", f"a tokenizer of {ours.vocab_size} tokens", theirs.vocab_size)
    for id in range(ours.vocab_size):
        a, b = ours.id_to_token(id), theirs.id_to_token(id)
        if a != b:
            raise mismatch("draft", f"the target's token {id}, {a!r}", repr(b))


def _check_modules(model: Model, draft: str) -> None:
    if not (isinstance(model, MultiTokenModel) and model.params["body"]["multi_token"]):
        own = 'a model of the task "multi_token_lm" with at least one module'
        raise wrong("draft", f"a decoder, as this is not {own}", draft)


def speculate(
    model: Model,
    draft: Draft,
    prompts: list[list[int]],
    settings: GenerationSettings,
    sampling: Sampling,
    statistics: DraftStatistics | None,
) -> Iterator[list[Piece]]:
    """The steps of `stream` with a draft; all checks happen here."""
    check_draft(model, draft, settings)
    check_prompts(model, prompts)
    rules = Rules(sampling, settings.ids_below(model), stops_of(model, settings.stop_ids))
    target = Rewritable(cast(CausalModel, model), prompts, settings, spare=spare_places(settings))
    proposer: Proposer
    if isinstance(draft, str):
        proposer = ModuleDraft(cast(MultiTokenModel, model), prompts, settings, rules)
    else:
        proposer = DraftModel(cast(CausalModel, draft), prompts, settings, rules)
    writer = Writer(model, target, settings)
    return _steps(target, proposer, writer, settings, rules, statistics or DraftStatistics())


def _steps(
    target: Rewritable,
    proposer: Proposer,
    writer: Writer,
    settings: GenerationSettings,
    rules: Rules,
    statistics: DraftStatistics,
) -> Iterator[list[Piece]]:
    """A round: proposals, one pass of the target, verdicts, and both continue from there.

    Each text has its own number of tokens in a round, so after it the texts that have more of them
    appear in more steps.
    """
    longest, limit = longest_draft(settings), target.model.config.cache_context
    going = list(range(len(target.texts) * settings.samples))  # the unfinished continuations
    rows = np.array(going) // settings.samples  # and the target's texts that they continue
    proposals, first = Proposals.none(len(going)), True
    while going:
        generators = [writer.generators[n] for n in going]
        lengths = [len(text) for text in target.texts]
        if not first:
            room = [min(writer.remaining[n] - 1, limit - m) for n, m in zip(going, lengths)]
            counts = [max(0, min(longest, n)) for n in room]
            proposals = Proposals.none(len(going))
            if any(counts):
                proposals = proposer.propose(counts, generators)
        new = len(proposals.probabilities)
        for step in range(new):
            tokens = [(*some[step:], 0)[0] for some in proposals.tokens]
            target.select(rows, np.array(tokens))
        counts = [0] * len(lengths) if first else [len(some) for some in proposals.tokens]
        logits, hidden = target.scores(new, counts)
        texts = [target.texts[n][: lengths[n]] for n in rows]
        verdicts = judge(logits[rows], texts, proposals, generators, rules)
        steps, finished = _written(writer, going, verdicts)
        if not first:
            for n, verdict, some in zip(going, verdicts, proposals.tokens):
                written = sum(piece.row == n for pieces in steps for piece in pieces)
                statistics.proposed += len(some)
                statistics.checked += min(written, verdict.checked)
                statistics.accepted += min(written, verdict.accepted)
                statistics.tokens += written
                statistics.passes += 1
        kept = [i for i, n in enumerate(going) if n not in finished]
        if kept:
            taken = [verdicts[i].accepted for i in kept]
            own = [verdicts[i].tokens[-1] for i in kept]
            sizes = [lengths[rows[i]] + n for i, n in zip(kept, taken)]
            target.rewrite(rows[kept], sizes, own)
            proposer.follow(rows[kept], taken, own, hidden)
        yield from steps
        going, first = [going[i] for i in kept], False
        rows = np.arange(len(going))


def _written(
    writer: Writer, going: list[int], verdicts: list[Verdict]
) -> tuple[list[list[Piece]], set[int]]:
    """The tokens of a round as steps of `stream`, up to each text's end; those that have ended."""
    steps, finished = [], set()
    for step in range(max(len(verdict.tokens) for verdict in verdicts)):
        pieces = []
        for n, verdict in zip(going, verdicts):
            if step < len(verdict.tokens) and n not in finished:
                token, log_p = verdict.tokens[step], verdict.log_probabilities[step]
                pieces.append(writer.piece(n, token, log_p))
                if pieces[-1].finished:
                    finished.add(n)
        if pieces:
            steps.append(pieces)
    return steps, finished
