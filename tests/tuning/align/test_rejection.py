"""Rejection sampling: which answers are kept, in which form, and that sft reads them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.calls.test_tuning import MODEL, PROMPTS, TEXT
from tinyplm.tokenizers.chat.formats import TEMPLATES
from tinyplm.tuning import (
    accepted_answers,
    conversations,
    instruction_messages,
    read_records,
    record_reward,
    rollouts,
    write_records,
)
from tinyplm.tuning.align import rejection

RECORDS = [{"prompt": "a", "answer": "x"}, {"prompt": "b", "answer": "y"}]
STOPS = [*range(60), *range(160, 300)]  # a random model stops soon
DRAW = {"max_new_tokens": 4, "samples": 6, "stop_ids": STOPS, "seed": 5, "progress": False}


def length(prompts, answers):
    return [float(len(answer)) for answer in answers]


def drawn():
    return rollouts(MODEL, PROMPTS, **{name: value for name, value in DRAW.items() if name != "progress"})


def usable(d):
    return [n for n, (text, done) in enumerate(zip(d.texts(TEXT, STOPS), d.finished)) if done and text.strip()]


@pytest.mark.parametrize("threshold", [None, 2])
@pytest.mark.parametrize("keep", rejection.KEEP)
def test_what_is_kept(keep, threshold):
    """Against the answers themselves, chosen by hand from the same rollouts."""
    found, statistics = accepted_answers(MODEL, PROMPTS, RECORDS, length, keep=keep, threshold=threshold, **DRAW)
    d = drawn()
    good = [n for n in usable(d) if threshold is None or d.lengths[n] >= threshold]
    texts, wanted = d.texts(TEXT, STOPS), []
    for number, record in enumerate(RECORDS):
        mine = [n for n in good if n // 6 == number]
        if keep == "best":
            mine = [n for n in mine if d.lengths[n] == max(d.lengths[m] for m in mine)][:1]
        pairs = dict.fromkeys((texts[n], float(d.lengths[n])) for n in mine)
        wanted += [{"instruction": record["prompt"], "output": text, "reward": r} for text, r in pairs]
    assert found == wanted and len(found) > 1
    assert (statistics.drawn, statistics.finished, statistics.accepted) == (12, len(usable(d)), len(good))
    assert statistics.by_prompt.tolist() == [sum(n // 6 == number for n in good) / 6 for number in (0, 1)]
    assert statistics.share == len(good) / 12 and statistics.kept == len(found) and len(usable(d)) < 12
    assert statistics.before == pytest.approx(d.lengths.mean()) and statistics.after == np.mean([r["reward"] for r in wanted])


def test_parts_and_workers_do_not_matter_and_the_seed_does(monkeypatch):
    def run(**changes):
        return accepted_answers(MODEL, PROMPTS * 3, RECORDS * 3, length, keep="all", **{**DRAW, **changes})[0]

    expected = run()
    monkeypatch.setattr(rejection, "ROWS", 13)  # two prompts at a time
    assert run() == run(workers=2) == expected != run(seed=6)


def test_a_text_is_kept_once_for_equal_prompts():
    options = {**DRAW, "samples": 60, "keep": "all"}
    found, statistics = accepted_answers(MODEL, [[1, 2]] * 2, [RECORDS[0]] * 2, length, **options)
    assert 0 < statistics.kept == len({record["output"] for record in found}) == len(found) < statistics.accepted


def test_the_reward_sees_the_record_of_each_prompt(monkeypatch):
    monkeypatch.setattr(rejection, "ROWS", 1)  # one prompt at a time
    seen = []

    def rule(prompt, record):
        seen.append((prompt, record["answer"]))
        return 1

    accepted_answers(MODEL, PROMPTS, RECORDS, record_reward(rule, TEXT, RECORDS, STOPS), **DRAW)
    texts = [TEXT.decode(prompt, skip_special=True) for prompt in PROMPTS]
    assert seen == [(texts[0], "x")] * 6 + [(texts[1], "y")] * 6


def test_records_go_through_a_file_to_sft(tmp_path):
    """Instructions, and conversations if a prompt is one; prompt and answer come back as they were."""
    asked = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    for kind, records in (("instruction", RECORDS), ("conversation", [RECORDS[0], {"prompt": asked, "tools": tools}])):
        found, _ = accepted_answers(MODEL, PROMPTS, records, length, keep="all", **DRAW)
        write_records(tmp_path / f"{kind}.jsonl", found)
        again = read_records(tmp_path / f"{kind}.jsonl", ("instruction", "conversation"))
        assert [{n: v for n, v in r.items() if n != "input"} for r in again] == found
        talks = again if kind == "conversation" else [{"messages": instruction_messages(r)} for r in again]
        without = [{"messages": talk["messages"]} for talk in talks]
        assert len(conversations(TEXT, TEMPLATES["chatml"], without).sequences) == len(found)
    assert found[0]["messages"][:-1] == [{"role": "user", "content": "a"}] and found[-1]["messages"][:-1] == asked
    assert found[-1]["tools"] == tools and "tools" not in found[0]


def test_a_text_that_forges_a_turn_is_dropped():
    end = TEXT.token_to_id("<|endoftext|>")
    plain = [i for i in STOPS if i != end]
    every = rollouts(MODEL, PROMPTS, max_new_tokens=4, samples=200, stop_ids=plain, seed=1)
    assert any(end in answer[:-1] for answer, done in zip(every.answers, every.finished) if done)
    found, _ = accepted_answers(
        MODEL, PROMPTS, RECORDS, length, keep="all", **{**DRAW, "samples": 200, "stop_ids": plain, "seed": 1}
    )
    assert found and not any("<|endoftext|>" in record["output"] for record in found)


def test_nothing_may_remain():
    found, statistics = accepted_answers(MODEL, PROMPTS, RECORDS, length, threshold=99, **DRAW)
    assert found == [] and statistics.kept == statistics.accepted == 0 and math.isnan(statistics.after)


@pytest.mark.parametrize(("changes", "message"), [
    ({"records": RECORDS[:1]}, "records: expected 2, one per prompt, got 1"),
    ({"records": [{"answer": "x"}] * 2}, "record 0: expected a dict with a text or messages as 'prompt'"),
    ({"keep": "good"}, "keep: expected one of best, all, got 'good'"),
    ({"threshold": float("nan")}, "threshold: expected None or a finite number"),
    ({"reward": lambda prompts, answers: [float("nan")] * 12}, "reward: answer 0: expected a finite number as reward, got nan"),
    ({"prompts": [[1] * 30, [2]]}, r"prompts\[0\]: expected at most 28 tokens"),
])  # fmt: skip
def test_bad_input(changes, message):
    given = {"model": MODEL, "prompts": PROMPTS, "records": RECORDS, "reward": length, **DRAW, **changes}
    with pytest.raises(ValueError, match=message):
        accepted_answers(**given)
