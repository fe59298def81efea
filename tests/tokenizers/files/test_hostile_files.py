"""A campaign of hostile tokenizer files: each is refused in one line within two seconds, or gives only correct results."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from tests.support import hostile_tokenizers as hostile
from tests.support.hostile_templates import ENDLESS, FINITE, TALK
from tests.support.real_templates import REAL
from tinyplm.tokenizers.chat.formats import folder_template

SOURCES = [hostile.damaged_values, hostile.explosions, hostile.damaged_text, hostile.damaged_models]


@pytest.mark.parametrize("make", hostile.KINDS.values(), ids=list(hostile.KINDS))
def test_whole_files_are_right(make, tmp_path):
    assert hostile.check(hostile.written(make()), tmp_path) == "right"


@pytest.mark.parametrize("source", SOURCES, ids=[source.__name__ for source in SOURCES])
def test_hostile_files(source, tmp_path):
    outcomes: Counter[str] = Counter()
    wrong = []
    for name, files in source():
        try:
            outcomes[hostile.check(files, tmp_path)] += 1
        except Exception as error:  # collect every failure
            wrong.append(f"{name}: {type(error).__name__}: {error}"[:300])
    assert not wrong, "\n".join([f"{len(wrong)} of {len(wrong) + outcomes.total()}", *wrong[:60]])
    assert outcomes["refused"] > 20


# Chat templates


def rendered(source, talk=TALK):
    return folder_template({"chat_template.jinja": source.encode()}).render(talk)


@pytest.mark.parametrize("name", ENDLESS)
def test_templates_without_measure_are_refused(name, monkeypatch):
    monkeypatch.setattr("tinyplm.tokenizers.chat.meter.SECONDS", 0.1)
    begin = time.process_time()
    with pytest.raises(ValueError, match=r"^chat_template\.jinja: chat template: ") as refused:
        rendered(ENDLESS[name])
    assert time.process_time() - begin < hostile.SECONDS
    message = str(refused.value)
    assert message.isprintable() and len(message) < hostile.LONGEST_MESSAGE


@pytest.mark.parametrize(("source", "expected"), FINITE.values(), ids=list(FINITE))
def test_templates_that_end(source, expected):
    assert rendered(source) == expected


def test_limits_hold_in_threads_and_grow_with_the_messages():
    from tinyplm.tokenizers.chat import meter

    outcomes = []

    def render(source):
        try:
            outcomes.append(len(rendered(source)))
        except ValueError as error:
            outcomes.append(str(error).partition("chat template: ")[2])

    threads = [threading.Thread(target=render, args=(source,)) for source in (ENDLESS["rjust"], REAL["ChatML"], ENDLESS["block"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=str) == [
        len(rendered(REAL["ChatML"])),
        "expected calls nested at most 100 levels deep, got more",
        "rjust: expected at most 100,079,000 steps, got more",
    ]
    # too slow for short messages
    big = [{"role": "user", "content": "x" * 100_000}]
    assert rendered("{{ (messages[0].content * 15) | length }}", big) == "1500000"
    assert rendered("{% set a = messages[0].content %}{{ a.replace(a[:3000], '') | length }}", big) == "1000"
    assert meter.Meter(0, 4000).seconds == meter.SECONDS + 4
    long = [{"role": role, "content": "word " * 30} for _ in range(2000) for role in ("user", "assistant")]
    begin = time.process_time()
    for name in ("ChatML", "Qwen", "DeepSeek"):
        assert len(rendered(REAL[name], long[:-1])) > 500_000
    assert time.process_time() - begin < 20
