"""Mixtures of sources: rates, amounts, order, and reading folders."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference.data import mixing as formulas
from tests.support.wrong_calls import wrong_calls
from tinyplm import data
from tinyplm.data import mixing


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9)), min_size=1, max_size=5),
    st.sampled_from([0.5, 1.0, 2.5, 4.0]),
    st.floats(0, 1),
)
def test_amounts_against_the_formula(sources, epochs, share):
    sizes = {f"{i}": size for i, (size, _) in enumerate(sources)}
    rates = {f"{i}": rate for i, (_, rate) in enumerate(sources)}
    most = sum(int(epochs * size) for size in sizes.values())
    if not most:
        return
    total = max(1, round(share * most))
    found = data.mixture_amounts(sizes, total, rates=rates, epochs=epochs)
    assert sum(found.values()) == total
    assert all(found[name] <= epochs * size for name, size in sizes.items())
    if epochs != 0.5:  # E n_i is whole unless n_i is odd
        caps = [int(epochs * size) for size in sizes.values()]
        exact = formulas.amounts(caps, [*rates.values()], total, 1.0)
        assert all(abs(a - b) < 1 + 1e-9 for a, b in zip(found.values(), exact))
    equal = data.mixture_amounts(sizes, total, rates=dict.fromkeys(sizes, 1), epochs=epochs)
    exact = formulas.unimax([int(epochs * size) for size in sizes.values()], total, 1.0)
    assert all(abs(a - b) < 1 + 1e-9 for a, b in zip(equal.values(), exact))


def test_amounts_without_a_cap_follow_the_sizes_or_rates():
    assert data.mixture_amounts({"a": 30, "b": 10}, 100) == {"a": 75, "b": 25}
    assert data.mixture_amounts({"a": 1, "b": 1, "c": 1}, 100, rates={"c": 2, "a": 1, "b": 1}) == {"a": 25, "b": 25, "c": 50}
    with pytest.raises(ValueError, match="total: expected at most 80, 2 epochs of all sources, got 81"):
        data.mixture_amounts({"a": 30, "b": 10}, 81, epochs=2)
    with pytest.raises(ValueError, match="rates: 'a': expected a finite number > 0, got 0"):
        data.mixture_amounts({"a": 30}, 3, rates={"a": 0})


def test_interleaving(monkeypatch):
    monkeypatch.setattr(mixing, "BLOCK", 50)
    amounts = {"a": 333, "none": 0, "b": 3, "c": 150}
    turns = data.Interleaving(amounts, seed=3)
    sources, numbers = turns.drawn(0, turns.length)
    for source, amount in enumerate(amounts.values()):  # each source in its own order, and exactly its amount
        assert numbers[sources == source].tolist() == list(range(amount))
    for first, count in ((0, 1), (17, 120), (485, 1), (486, 0), (49, 51), (100, 386)):  # from the number alone
        part = turns.drawn(first, count)
        assert (part[0] == sources[first : first + count]).all() and (part[1] == numbers[first : first + count]).all()
    starts = [sum(formulas.before(amount, j, 10) for amount in amounts.values()) for j in range(11)]
    for j, (start, end) in enumerate(zip(starts, starts[1:])):  # ten blocks, each with all shares
        found = Counter(sources[start:end].tolist())
        for source, amount in enumerate(amounts.values()):
            assert found[source] == formulas.before(amount, j + 1, 10) - formulas.before(amount, j, 10)
    assert (np.diff(sources[:50]) != 0).sum() > 10  # shuffled
    assert (data.Interleaving(amounts, seed=4).drawn(0, 100)[0] != sources[:100]).any()


@pytest.fixture
def folders(tmp_path):
    texts = {"web": [f"web {i}" for i in range(7)], "books": ["book " + "long " * 50, "other " + "long " * 50]}
    for name, documents in texts.items():
        (tmp_path / name).mkdir()
        lines = [json.dumps({"text": text, "id": i}) for i, text in enumerate(documents)]
        (tmp_path / name / "b.jsonl").write_text("\n\n".join(lines[1:]) + "\n")
        (tmp_path / name / "a.jsonl").write_text(lines[0])
    return texts, {name: tmp_path / name for name in texts}


def test_documents_of_folders(folders):
    texts, paths = folders
    mixture = data.MixedDocuments(paths, total=20, rates={"web": 1, "books": 2}, epochs=4, seed=1)
    assert mixture.amounts == {"web": 12, "books": 8} and len(mixture) == 20
    documents = list(mixture)
    of = {name: [d.text for d in documents if d.fields["source"] == name] for name in texts}
    for name, size in (("web", 7), ("books", 2)):
        for start in range(0, len(of[name]), size):  # each epoch has every document at most once
            epoch = of[name][start : start + size]
            assert len({*epoch}) == len(epoch) and {*epoch} <= {*texts[name]}
        assert {*of[name]} == {*texts[name]}
    assert of["web"][:7] != of["web"][7:] + of["web"][5:7]
    assert list(mixture.documents(13, 5)) == documents[13:18]  # from the number alone
    assert documents[0].fields["id"] in range(7) and documents[0].name.count(".jsonl:") == 1
    by_bytes = data.MixedDocuments(paths, total=200, rates={"web": 1, "books": 1}, by="bytes")
    lengths = {name: sum(p.stat().st_size for p in paths[name].iterdir()) / len(texts[name]) for name in texts}
    read = {name: lengths[name] * by_bytes.amounts[name] for name in texts}
    assert abs(read["web"] - read["books"]) < 2 * max(lengths.values())


def test_wrong_kinds_of_settings(folders):
    right = {"folders": folders[1], "total": 5, "rates": {"web": 1, "books": 2}, "epochs": 2.0, "by": "bytes", "seed": 1}
    aliases = {"folders": ["rates", "folder"]}
    complaints = wrong_calls(data.MixedDocuments, {**right, "field": "text"}, aliases=aliases)
    assert not complaints, "\n".join(complaints)


def test_folders_that_cannot_be_mixed(folders, tmp_path):
    _, paths = folders
    with pytest.raises(ValueError, match="none: expected a folder, got none"):
        data.MixedDocuments({"x": tmp_path / "none"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: expected \*.jsonl files with documents, got none"):
        data.MixedDocuments({"x": tmp_path / "empty"})
    (paths["web"] / "a.jsonl").write_text('{"body": "x"}\n[1]\n')
    mixture = data.MixedDocuments({"web": paths["web"]})
    with pytest.raises(ValueError, match=r"a.jsonl:\d: expected (a text in the field 'text'|an object), got"):
        list(mixture)
