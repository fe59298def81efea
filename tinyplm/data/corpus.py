"""Texts to learn from: what every Python carries, or the user's files; deduplication and the split.

A document is a str. Everything here is deterministic: the same Python version (or the same files) gives the
same documents in the same order, and the same seed the same split.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..arguments import (
    LARGEST_KEY,
    as_texts,
    check_number,
    check_path,
    check_several,
    check_text,
    check_whole,
)
from ..files import named, read_bytes

SEPARATOR = "<|endoftext|>"  # a line of its own between two documents of one file

# Not text about Python's library, or not there in every installation.
SKIPPED_PARTS = frozenset(
    [
        "__pycache__",
        "test",
        "tests",
        "idlelib",
        "lib2to3",
        "site-packages",
        "dist-packages",
        "pydoc_data",
    ]
)
SHINGLE_WORDS = 8  # a run of this many words in two places is a copy, not chance
REPEATED_SHARE = 0.5  # a paragraph is a copy when this share of its runs was seen before
SHORTEST_DOCUMENT = (
    400  # characters; shorter modules are a line of boilerplate (every codec has the same one)
)
LARGEST_FILE = 1 << 34  # bytes; a file is read whole
LARGEST_PIECE = 32_000  # characters; longer documents of the user are cut
SMALLEST_PIECE = 2_000
SMALLEST_COUNT = (
    20  # pieces that a corpus should have, so that a split by document can hit its fraction
)


# ---- the default corpus


def default_corpus() -> list[str]:
    """English text that every Python carries: its language reference and its library's docstrings.

    Documents: each topic of `pydoc_data.topics` (a section of the language reference), and each module of the
    standard library: its name and docstring, then those of its classes and functions in source order. A
    module is one document, because what belongs to it repeats itself (methods described like their
    neighbours, the same words for the same things): cut finer, half of a family of near copies would be
    trained on and the other half would be the validation text. For the same reason paragraphs that were seen
    before are removed (topics contain one another, modules have twins such as posixpath and ntpath, see
    `_without_copies`): of the runs of 8 words in a tenth held out, 8.5% also occur in the training text
    without this, 0.5% with it (mean of 12 splits).

    Sources are parsed, not imported, so nothing runs and nothing is left out for a library that is missing.

    Python 3.11: 396 documents, 2.00 MB, built in about 3 seconds. Other versions differ by a few percent,
    and so do distributions that leave out a part of the library.

    Returns the documents, sorted: topics by name, then modules by name.
    Errors: ValueError when the standard library has no sources here (a zipped or stripped Python).
    """
    kept = documentation()
    documents = [_join(kept[key]) for key in sorted(kept)]
    return deduplicate(document for document in documents if len(document) >= SHORTEST_DOCUMENT)


def documentation() -> dict[tuple[int, str], list[tuple[str, str]]]:
    """{(0, topic) or (1, module): its sections (heading, text)}, without copies: what `default_corpus` is made of.

    A topic is one section without a heading.  A module's first section is headed by its name and docstring's place, the others by
    the qualified names of its classes and functions.  ValueError: see default_corpus.
    """
    from pydoc_data.topics import topics

    root = Path(sysconfig.get_paths()["stdlib"])
    # Longest first: a chapter keeps its text, and the topics that repeat a part of it fall away.
    texts: dict[tuple[int, str], list[tuple[str, str]]] = {}
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        texts[0, name] = [("", topics[name])]
    for name, path in _modules(root):
        sections = _docstrings(path)
        if sections:
            (first, text), *rest = sections
            texts[1, name] = [(f"{name}\n\n{first}".rstrip(), text), *rest]
    if not any(kind == 1 for kind, _ in texts):
        raise ValueError(
            f"{root}: no sources of the standard library here, expected *.py files with docstrings"
        )
    return _without_copies(texts)


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    """(dotted name, path) of every module source under `root`, sorted by path; SKIPPED_PARTS left out."""
    for folder, folders, files in os.walk(root):
        # Names that are no identifiers cannot be imported: site-packages, config-3.11-x86_64-linux-gnu.
        folders[:] = sorted(
            name for name in folders if name.isidentifier() and name not in SKIPPED_PARTS
        )
        for file in sorted(files):
            stem, extension = os.path.splitext(file)
            if extension == ".py" and stem.isidentifier():
                path = Path(folder, file)
                parts = path.relative_to(root).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _docstrings(path: Path) -> list[tuple[str, str]]:
    """(qualified name, cleaned docstring) of the module (name "") and all it defines, in source order."""
    try:
        source = path.read_text(encoding="utf-8")
        with (
            warnings.catch_warnings()
        ):  # newer Pythons warn of old escapes such as "\d" in their own library
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (UnicodeDecodeError, SyntaxError):
        return []  # a few sources are in other encodings, and templates are not Python
    found = []

    def visit(node: ast.AST, name: str) -> None:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)  # clean=True: inspect.cleandoc
            if text:
                found.append((name, text))
        # Only statements can hold a definition; looking into expressions would cost most of the time.
        for field in ("body", "handlers", "orelse", "finalbody"):
            for child in getattr(node, field, ()):
                if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    visit(child, f"{name}.{child.name}".lstrip("."))
                elif isinstance(child, (ast.stmt, ast.ExceptHandler)):
                    visit(child, name)

    visit(tree, "")
    return found


def _without_copies(texts: dict) -> dict:
    """The same documents without the paragraphs that repeat an earlier one.

    texts: key -> sections (heading, text), in the order in which the first of two copies is kept. A
    paragraph (what blank lines separate) is a copy when at least REPEATED_SHARE of its runs of SHINGLE_WORDS
    words, whatever the line breaks between them, occurred before. Paragraphs shorter than one run stay: they
    are phrases that anyone writes again. Sections and documents that lose everything are left out.
    """
    seen: set[tuple[str, ...]] = set()
    result = {}
    for key, sections in texts.items():
        kept_sections = []
        for heading, text in sections:
            kept = []
            for paragraph in _paragraphs(text):
                words = paragraph.split()
                runs = [
                    tuple(words[i : i + SHINGLE_WORDS])
                    for i in range(len(words) - SHINGLE_WORDS + 1)
                ]
                repeated = sum(run in seen for run in runs)
                if not runs or repeated < REPEATED_SHARE * len(runs):
                    kept.append(paragraph)
                    seen.update(runs)
            if kept:
                kept_sections.append((heading, "\n\n".join(kept)))
        if kept_sections:
            result[key] = kept_sections
    return result


def _paragraphs(text: str) -> list[str]:
    """What blank lines separate, indentation kept."""
    lines = [line.rstrip() for line in text.splitlines()]
    return [block.strip("\n") for block in "\n".join(lines).split("\n\n") if block.strip()]


def _join(sections: list[tuple[str, str]]) -> str:
    return (
        "\n\n".join(f"{heading}\n\n{text}" if heading else text for heading, text in sections)
        + "\n"
    )


# ---- the user's files


def read_texts(paths: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    """The documents of text files (UTF-8, with or without byte-order mark), in the order given.

    A file is one document, or several where lines that hold only `<|endoftext|>` separate them. A document
    that is long for its corpus (more than a twentieth of all text, at least SMALLEST_PIECE and at most
    LARGEST_PIECE characters) is cut at the ends of paragraphs, so that one book can still be split into
    training and validation. Line ends become "\\n"; blank lines at both ends of a document go.

    Errors, each a ValueError of one line that names the file: missing, a folder, unreadable, empty, binary
    (the first byte that is NUL or not UTF-8).
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    check_several("paths", paths, "paths of files")
    paths = list(paths)
    if not paths:
        raise ValueError("no text files given, expected at least one")
    for path in paths:
        check_path("paths", path)
    documents = []
    for path in paths:
        text = _read_text(path)
        found = [document for document in _separated(text) if document.strip()]
        if not found:
            raise ValueError(f"{named(path)}: no text in this file, expected UTF-8 text")
        documents += found
    total = sum(map(len, documents))
    limit = min(LARGEST_PIECE, max(SMALLEST_PIECE, total // SMALLEST_COUNT))
    pieces = [piece.strip("\n") for document in documents for piece in cut(document, limit)]
    return [piece for piece in pieces if piece.strip()]


def _read_text(path: str | os.PathLike) -> str:
    name = named(path)
    data = read_bytes(path, largest=LARGEST_FILE)
    if not data:
        raise ValueError(f"{name}: empty file, expected UTF-8 text")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        text, bad = "", error.start
    else:
        bad = len(data)
    nul = data.find(b"\0", 0, bad)  # NUL is valid UTF-8, but no text has it
    if nul >= 0:
        raise ValueError(f"{name}: binary file, expected UTF-8 text: NUL at byte {nul}")
    if bad < len(data):
        raise ValueError(f"{name}: not UTF-8 text: byte {bad} is 0x{data[bad]:02x}")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _separated(text: str) -> list[str]:
    documents: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip() == SEPARATOR:
            documents.append([])
        else:
            documents[-1].append(line)
    return ["\n".join(lines) for lines in documents]


def cut(text: str, limit: int) -> list[str]:
    """`text` in pieces of `limit / 2` to `limit` characters, limit >= 1; joined, they are `text` again.

    Each piece ends at the last paragraph end that it can hold, else at the last line end, else after the last
    space, else at `limit`. A text of at most 3/2 `limit` characters stays whole, so no piece is tiny.
    """
    check_text("text", text)
    check_whole("limit", limit, 1)
    pieces = []
    start = 0
    while len(text) - start > limit + limit // 2:
        for border in ("\n\n", "\n", " ", ""):
            end = text.rfind(border, start + limit // 2, start + limit)
            if end >= 0:  # the empty border is found in any text
                break
        end += len(border)
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


# ---- duplicates, and the split


def deduplicate(documents: Iterable[str]) -> list[str]:
    """The documents without exact repetitions, the first of each kept, in order.

    Two documents are the same when they differ in white space alone. Keeps 16 bytes a document.
    """
    seen: set[bytes] = set()
    kept = []
    check_several("documents", documents)
    for document in documents:
        check_text("documents", document)
        text = " ".join(document.split())
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            kept.append(document)
    return kept


def split_documents(
    documents: Sequence[str], fraction: float, seed: int
) -> tuple[list[str], list[str]]:
    """(train, validation): whole documents, with close to `fraction` of all characters in validation.

    The documents are visited in the order of a hash of seed and text: a document that comes nearer to the
    wanted share goes to validation. So the split depends on the texts and the seed alone (not on NumPy's
    version or the order of the files), and equal texts cannot end up on both sides. Both lists keep the
    order given.

    Errors: ValueError when fraction is not inside (0, 1), or there are fewer than two different documents.
    """
    check_number("fraction", fraction, above=0, below=1)
    check_whole("seed", seed, -(2**63), LARGEST_KEY)
    documents = as_texts("documents", documents)
    sizes: dict[str, int] = {}
    for document in documents:
        sizes[document] = sizes.get(document, 0) + len(document)
    if len(sizes) < 2:
        raise ValueError(
            f"{len(sizes)} different document(s) of {sum(sizes.values())} characters given, "
            f"expected at least 2: one to train on and one for validation (a line {SEPARATOR} separates two in one file)"
        )

    def order(document: str) -> bytes:
        return hashlib.blake2b(f"{seed}\n{document}".encode("utf-8", "surrogatepass")).digest()

    wanted = fraction * sum(sizes.values())
    chosen: set[str] = set()
    taken = 0
    for document in sorted(sizes, key=order):
        # Nearer with it than without it; the last document always stays for training.
        if (
            abs(taken + sizes[document] - wanted) < abs(taken - wanted)
            and len(chosen) < len(sizes) - 1
        ):
            chosen.add(document)
            taken += sizes[document]
    if not chosen:  # every document is more than twice what was wanted
        chosen.add(min(sizes, key=lambda document: (sizes[document], order(document))))
    train = [document for document in documents if document not in chosen]
    return train, [document for document in documents if document in chosen]
