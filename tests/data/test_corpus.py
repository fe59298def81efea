"""The corpus: default and user texts, duplicates, the split."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyplm.data import corpus as corpus_module
from tinyplm.data import deduplicate, default_corpus, read_texts, split_documents
from tinyplm.data.corpus import cut

ROOT = Path(__file__).resolve().parents[2]


def fingerprint(documents):
    return hashlib.sha256("\0".join(documents).encode()).hexdigest()


def runs(documents, words=8):
    for document in documents:
        split = document.split()
        for i in range(len(split) - words + 1):
            yield tuple(split[i : i + words])


def raises(message):
    """A one-line ValueError that contains `message` verbatim."""
    import re

    return pytest.raises(ValueError, match=rf"\A[^\n]*{re.escape(message)}[^\n]*\Z")


# ---- the default corpus


@pytest.fixture(scope="module")
def corpus():
    return default_corpus()


def test_default_corpus_is_large_and_clean(corpus):
    assert sum(len(document.encode()) for document in corpus) > 1_000_000
    assert len(corpus) > 200
    assert len({" ".join(document.split()) for document in corpus}) == len(corpus)
    assert all(len(document) >= corpus_module.SHORTEST_DOCUMENT for document in corpus)
    assert not any("\0" in document for document in corpus)
    heads = {document.split("\n", 1)[0] for document in corpus}
    assert {"textwrap", "json.decoder", 'The "for" statement', "Special method names"} & heads
    assert not any(head.startswith(("test.", "idlelib", "lib2to3")) for head in heads)


def test_default_corpus_is_the_same_in_another_process(corpus):
    code = (
        "import hashlib; from tinyplm.data import default_corpus; "
        "print(hashlib.sha256('\\0'.join(default_corpus()).encode()).hexdigest())"
    )
    environment = dict(os.environ, PYTHONHASHSEED="123", PYTHONPATH=str(ROOT))
    result = subprocess.run([sys.executable, "-OO", "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == fingerprint(corpus), result.stderr


@pytest.mark.parametrize("seed", range(3))
def test_little_of_the_validation_text_is_in_the_training_text(corpus, seed):
    train, validation = split_documents(corpus, 0.1, seed)
    known = set(runs(train))
    held_out = list(runs(validation))
    assert sum(run in known for run in held_out) < 0.02 * len(held_out)


def test_no_sources_of_the_library(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with raises(f"{tmp_path}: expected *.py files of the standard library"):
        default_corpus()


def test_docstrings_in_source_order_and_what_is_skipped(tmp_path):
    source = '''"""Module."""
if True:
    def f():
        """F.

            indented
        not
        """
        def inner(): "Inner."
else:
    async def g(): "G."
class C:
    "C."
    x = lambda: "no docstring"
    def m(self): "M."
'''
    (tmp_path / "a.py").write_text(source)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("'P.'")
    (tmp_path / "latin.py").write_bytes("# -*- coding: latin-1 -*-\n'é'".encode("latin-1"))
    (tmp_path / "template.py").write_text("def {{name}}")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "hidden.py").write_text("'Hidden.'")
    found = {name: corpus_module._docstrings(path) for name, path in corpus_module._modules(tmp_path)}
    assert list(found) == ["a", "latin", "template", "package"]
    assert found["a"] == [
        ("", "Module."),
        ("f", "F.\n\n    indented\nnot"),
        ("f.inner", "Inner."),
        ("g", "G."),
        ("C", "C."),
        ("C.m", "M."),
    ]
    assert found["package"] == [("", "P.")]
    assert found["latin"] == found["template"] == []


def test_paragraphs_seen_before_are_removed():
    long = "one two three four five six seven eight nine ten eleven twelve"
    near = long.replace("twelve", "twenty").replace(" four", "\n   four")
    other = "a paragraph that has nothing in common with those that came before it"
    begins_alike = f"one two three four five six seven eight nine, but then {other} in any of its words"
    result = corpus_module._without_copies(
        {
            "first": [("", f"{long}\n\nshort")],
            "copy": [("h", near)],
            "partly": [("h", f"{near}\n\nshort\n\n{other}"), ("gone", long)],
            "begins alike": [("h", begins_alike)],
        }
    )
    assert result == {
        "first": [("", f"{long}\n\nshort")],
        "partly": [("h", f"short\n\n{other}")],
        "begins alike": [("h", begins_alike)],
    }


# ---- the user's files


def test_read_texts_documents_and_line_ends(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_bytes("\ufeffa\r\nb\n<|endoftext|>\n\n<|endoftext|>\nc <|endoftext|> d\n".encode())
    two.write_text("\n  é\n")
    assert read_texts([one, str(two)]) == ["a\nb", "c <|endoftext|> d", "  é"]
    assert read_texts(str(two)) == read_texts(two) == ["  é"]


def test_read_texts_cuts_one_large_file_so_that_it_can_be_split(tmp_path):
    path = tmp_path / "book.txt"
    paragraphs = [f"Paragraph {i}. " + "Some words follow here. " * (i % 20 + 1) for i in range(8000)]
    path.write_text("\n\n".join(paragraphs))
    pieces = read_texts([path])
    assert len(pieces) >= corpus_module.SMALLEST_COUNT
    assert all(16_000 <= len(piece) <= 48_000 for piece in pieces)
    assert "\n\n".join(pieces) == "\n\n".join(paragraphs)  # every boundary lies between paragraphs
    train, validation = split_documents(pieces, 0.1, 0)
    assert 0.05 < len(validation) / len(pieces) < 0.2


def test_read_texts_cuts_a_small_file_into_small_pieces(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_text("A line of a poem.\n" * 3000)
    assert len(read_texts([path])) >= 15


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "expected UTF-8 text, got an empty file"),
        (b" \n\n<|endoftext|>\n ", "expected UTF-8 text, got only white space"),
        (b"text\0text", "expected UTF-8 text, got NUL at byte 4"),
        (b"a\0\xff", "NUL at byte 1"),
        (b"caf\xe9 au lait", "expected UTF-8 text, got 0xe9 at byte 3"),
        (b"caf\xe9\0", "expected UTF-8 text, got 0xe9 at byte 3"),
        ("text".encode("utf-16"), "expected UTF-8 text, got 0xff at byte 0"),
        (b"cut in a character \xc3", "got 0xc3 at byte 19"),
    ],
)
def test_read_texts_bad_files(tmp_path, data, message):
    path = tmp_path / "x.txt"
    path.write_bytes(data)
    with raises(f"{path}: ") as error:
        read_texts([path])
    assert message in str(error.value)


def test_read_texts_missing_folder_and_none(tmp_path):
    with raises(f"{tmp_path / 'no.txt'}: expected a file, got none (no such file)"):
        read_texts([tmp_path / "no.txt"])
    with raises(f"{tmp_path}: expected a regular file, got a folder"):
        read_texts([tmp_path])
    with raises("paths: expected at least one text file, got none"):
        read_texts([])


@given(st.lists(st.sampled_from(["a", "bb ", "\n", "\n\n", "cccccc"]), max_size=80), st.integers(4, 60))
def test_cut_loses_nothing(parts, limit):
    text = "".join(parts)
    pieces = cut(text, limit)
    assert "".join(pieces) == text
    assert all(len(piece) <= limit for piece in pieces[:-1])
    assert all(len(piece) >= limit // 2 for piece in pieces[:-1])
    if len(text) > limit:
        assert limit // 2 <= len(pieces[-1]) <= limit + limit // 2


def test_cut_prefers_paragraphs_then_lines_then_words():
    assert cut("aaaa bb\ncc\n\ndd eeeeeeee", 14)[0] == "aaaa bb\ncc\n\n"
    assert cut("aaaa bb\ncc dd eeeeeeee", 14)[0] == "aaaa bb\n"
    assert cut("aaaa bbbb cc dd eeeeeeee", 14)[0] == "aaaa bbbb cc "
    assert list(map(len, cut("a" * 50, 14))) == [14, 14, 14, 8]


# ---- duplicates, and the split


def test_deduplicate_ignores_white_space_and_keeps_the_first():
    assert deduplicate(["a b", "c", "a\n  b ", "c", "ab"]) == ["a b", "c", "ab"]
    assert deduplicate(iter([])) == []


documents_strategy = st.lists(st.text(min_size=1, max_size=40), min_size=2, max_size=30, unique=True)


@given(documents_strategy, st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_split_is_a_partition_near_its_fraction(documents, fraction, seed):
    train, validation = split_documents(documents, fraction, seed)
    assert train and validation
    assert sorted(train + validation) == sorted(documents)
    assert train == [d for d in documents if d in set(train)]  # in the original order
    assert set(split_documents(documents[::-1], fraction, seed)[1]) == set(validation)
    total = sum(map(len, documents))
    assert abs(sum(map(len, validation)) - fraction * total) <= max(map(len, documents))


def test_split_depends_on_the_seed_and_keeps_equal_documents_together():
    documents = [f"document {i}" for i in range(100)]
    assert split_documents(documents, 0.1, 0) != split_documents(documents, 0.1, 1)
    train, validation = split_documents(documents * 2, 0.1, 0)
    assert not set(train) & set(validation)
    assert len(train) + len(validation) == 200


@pytest.mark.parametrize("documents", [[], ["one"], ["same", "same"]])
def test_split_of_too_few(documents):
    with raises(f"documents: expected at least 2 distinct ones, for training and validation, got {len(set(documents))} of "):
        split_documents(documents, 0.1, 0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_split_fraction(fraction):
    with raises(f"fraction: expected a finite number > 0 and < 1, got {fraction!r}"):
        split_documents(["a", "b"], fraction, 0)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3", None, True])
def test_pieces_have_at_least_a_character(limit):
    """A limit of 0 once looped forever."""
    with raises("limit: expected an integer >= 1, got "):
        cut("abc", limit)
    assert cut("abc", 1) == ["a", "b", "c"] and cut("abc", 2) == ["abc"] and cut("", 1) == [""]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_no_text_file(tmp_path):
    os.mkfifo(tmp_path / "x.txt")
    with raises(f"{tmp_path / 'x.txt'}: expected a regular file, got a pipe"):
        read_texts([tmp_path / "x.txt"])
