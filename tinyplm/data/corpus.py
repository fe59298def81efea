"""Training texts: the documentation that ships with Python, or text files; duplicates, the split.

A document is a str. Everything here is deterministic: the same Python version (or the same files)
gives the same documents in the same order, and the same seed gives the same split.
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
    mismatch,
)
from ..files import printable, read_bytes

SEPARATOR = "<|endoftext|>"  # a line of its own between two documents of one file

# Not about Python's library, or missing from some installations.
SKIPPED_PARTS = frozenset(
    "__pycache__ test tests idlelib lib2to3 site-packages dist-packages pydoc_data".split()
)
SHINGLE_WORDS = 8  # words; a run of this length that occurs twice is a copy, not chance
REPEATED_SHARE = 0.5  # a paragraph is a copy if this share of its runs occurred before
SHORTEST_DOCUMENT = 400  # characters; shorter modules are boilerplate (every codec has the same)
LARGEST_FILE = 1 << 34  # bytes; a file is read whole
LARGEST_LINE = 1 << 30  # bytes of a JSON line
LARGEST_PIECE = 32_000  # characters; longer documents from the user's files are cut
SMALLEST_PIECE = 2_000
SMALLEST_COUNT = 20  # pieces per corpus, so that a split by document can meet its fraction


# ---- the default corpus


def default_corpus() -> list[str]:
    """English text that ships with every Python: the language reference and library docstrings.

    Documents: each topic of `pydoc_data.topics` (a section of the language reference), and each
    module of the standard library: its name and docstring, then those of its classes and functions
    in source order. A whole module is one document because its docstrings repeat one another
    (similar methods, the same phrases): with a finer cut, near copies would end up on both sides of
    the training/validation split. Paragraphs that occurred earlier are removed for the same reason
    (topics contain one another, and modules have twins such as posixpath and ntpath; see
    `_without_copies`): with a tenth held out, 8.5% of its runs of 8 words also occur in training
    text without this, 0.5% with it (mean of 12 splits).

    Sources are parsed, not imported: no code runs, and missing libraries leave no gaps.

    Python 3.11: 396 documents, 2.00 MB, built in about 3 seconds. Other versions, and distributions
    without parts of the library, differ by a few percent.

    Returns the documents, sorted: topics by name, then modules by name.
    Errors: ValueError if the standard library has no sources here (a zipped or stripped Python).
    """
    kept = documentation()
    documents = [_join(kept[key]) for key in sorted(kept)]
    return deduplicate(document for document in documents if len(document) >= SHORTEST_DOCUMENT)


def documentation() -> dict[tuple[int, str], list[tuple[str, str]]]:
    """The sections (heading, text) of each (0, topic) and (1, module), without copies.

    The source of `default_corpus`. A topic is one section without a heading. A module's first
    section is headed by its name, the others by the qualified names of its classes and functions.
    Errors: as in default_corpus.
    """
    from pydoc_data.topics import topics

    root = Path(sysconfig.get_paths()["stdlib"])
    # Longest first: a chapter keeps its text, and topics that repeat part of it are dropped.
    texts: dict[tuple[int, str], list[tuple[str, str]]] = {}
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        texts[0, name] = [("", topics[name])]
    for name, path in _modules(root):
        sections = _docstrings(path)
        if sections:
            (first, text), *rest = sections
            texts[1, name] = [(f"{name}\n\n{first}".rstrip(), text), *rest]
    if not any(kind == 1 for kind, _ in texts):
        raise mismatch(root, "*.py files of the standard library with docstrings", "none")
    return _without_copies(texts)


def _modules(root: Path) -> Iterator[tuple[str, Path]]:
    """(dotted name, path) of every module under `root` except SKIPPED_PARTS, sorted by path."""
    for folder, folders, files in os.walk(root):
        # Skip names that cannot be imported: site-packages, config-3.11-x86_64-linux-gnu.
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
    """(qualified name, cleaned docstring) of the module (name "") and all definitions in it."""
    try:
        source = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():  # newer Pythons warn about "\d" in their own library
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (UnicodeDecodeError, SyntaxError):
        return []  # a few sources have other encodings, and templates are not valid Python
    found: list[tuple[str, str]] = []

    def visit(node: ast.AST, name: str) -> None:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)  # clean=True: inspect.cleandoc
            if text:
                found.append((name, text))
        # Only statements can contain definitions; visiting expressions would dominate the time.
        for field in ("body", "handlers", "orelse", "finalbody"):
            for child in getattr(node, field, ()):
                if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    visit(child, f"{name}.{child.name}".lstrip("."))
                elif isinstance(child, (ast.stmt, ast.ExceptHandler)):
                    visit(child, name)

    visit(tree, "")
    return found


def _without_copies(
    texts: dict[tuple[int, str], list[tuple[str, str]]],
) -> dict[tuple[int, str], list[tuple[str, str]]]:
    """The same documents without paragraphs that repeat an earlier one.

    texts: key -> sections (heading, text); of two copies the first in this order is kept. A
    paragraph (a block between blank lines) is a copy if at least REPEATED_SHARE of its runs of
    SHINGLE_WORDS words occurred before, regardless of line breaks. Paragraphs shorter than one run
    are kept: they are common phrases. Sections and documents left empty are dropped.
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
    """The blocks between blank lines, with their indentation."""
    lines = [line.rstrip() for line in text.splitlines()]
    return [block.strip("\n") for block in "\n".join(lines).split("\n\n") if block.strip()]


def _join(sections: list[tuple[str, str]]) -> str:
    parts = [f"{heading}\n\n{text}" if heading else text for heading, text in sections]
    return "\n\n".join(parts) + "\n"


# ---- the user's files


def read_texts(paths: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    """The documents of text files (UTF-8, with or without a byte-order mark), in order.

    A file is one document, or several if lines containing only `<|endoftext|>` separate them. Of
    JSON lines (.jsonl, also .gz and .zst) each has a document in its field "text", and a folder
    that `tinyplm data` has written stands for its files. A
    document that is long for its corpus (more than a twentieth of all text, but no limit below
    SMALLEST_PIECE or above LARGEST_PIECE characters) is cut at paragraph ends, so that a single
    book can still be split into training and validation. Line endings become "\\n"; blank lines at
    the start and end of a document are removed.

    Errors: a one-line ValueError naming the file if it is missing, a folder, unreadable, empty, or
    binary (with the first byte that is NUL or not UTF-8).
    """
    documents = read_documents(paths)
    total = sum(map(len, documents))
    limit = min(LARGEST_PIECE, max(SMALLEST_PIECE, total // SMALLEST_COUNT))
    pieces = [piece.strip("\n") for document in documents for piece in cut(document, limit)]
    return [piece for piece in pieces if piece.strip()]


def read_documents(paths: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    """The same, without cutting long documents, and with the blank lines around them."""
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    check_several("paths", paths, "paths of files")
    paths = list(paths)
    if not paths:
        raise ValueError("paths: expected at least one text file, got none")
    for path in paths:
        check_path("paths", path)
    return [document for path in paths for document in _documents_of(path)]


def _documents_of(path: str | os.PathLike) -> list[str]:
    from .pipeline.compression import check_readable, compression
    from .pipeline.readers import Part, read
    from .pipeline.sources import files_of, is_corpus, kind_of

    if is_corpus(path):
        files = [file for file in files_of(path) if os.path.getsize(file)]
        if not files:
            raise mismatch(printable(path), "documents in this folder", "none")
        return [document for file in files for document in _documents_of(file)]
    kind = kind_of(path)
    if kind == "jsonl" or (kind == "text" and compression(path) != "none"):
        check_readable(path)
        documents = []
        for name, document, counts in read(
            Part(os.fspath(path), kind, 0, None, 1), longest=LARGEST_LINE
        ):
            if document is None or counts:
                raise mismatch(printable(name), "a document", ", ".join(counts))
            documents.append(document.text)
    else:
        documents = [document for document in _separated(_read_text(path)) if document.strip()]
    if not documents:
        raise ValueError(f"{printable(path)}: expected UTF-8 text, got only white space")
    return documents


def _read_text(path: str | os.PathLike) -> str:
    name = printable(path)
    data = read_bytes(path, largest=LARGEST_FILE)
    if not data:
        raise ValueError(f"{name}: expected UTF-8 text, got an empty file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        text, bad = "", error.start
    else:
        bad = len(data)
    nul = data.find(b"\0", 0, bad)  # NUL is valid UTF-8, but does not occur in text
    if nul >= 0:
        raise ValueError(f"{name}: expected UTF-8 text, got NUL at byte {nul}")
    if bad < len(data):
        raise ValueError(f"{name}: expected UTF-8 text, got 0x{data[bad]:02x} at byte {bad}")
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
    """`text` in pieces of `limit / 2` to `limit` characters, limit >= 1; joined, they are `text`.

    Each piece ends at the last paragraph end within the limit, else the last line end, else the
    last space, else at `limit`. A text of at most 3/2 `limit` characters stays whole, so no piece
    is tiny.
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


# ---- deduplication and the split


def deduplicate(documents: Iterable[str]) -> list[str]:
    """The documents without duplicates, in order; the first of each is kept.

    Documents that differ only in white space are duplicates. Keeps 16 bytes per document.
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
    """(train, validation): whole documents, about `fraction` of all characters in validation.

    Documents are visited in the order of a hash of seed and text; one that brings the validation
    share closer to `fraction` is added to it. The split depends on texts and seed alone (not on
    NumPy's version or the order of the files), and equal texts never end up on both sides. Both
    lists keep the input order.

    Errors: ValueError if fraction is not in (0, 1) or there are fewer than two distinct documents.
    """
    check_number("fraction", fraction, above=0, below=1)
    check_whole("seed", seed, -(2**63), LARGEST_KEY)
    documents = as_texts("documents", documents)
    sizes: dict[str, int] = {}
    for document in documents:
        sizes[document] = sizes.get(document, 0) + len(document)
    if len(sizes) < 2:
        raise ValueError(
            "documents: expected at least 2 distinct ones, for training and validation, "
            f"got {len(sizes)} of {sum(sizes.values())} characters "
            f"(a line {SEPARATOR} separates documents in one file)"
        )

    def order(document: str) -> bytes:
        return hashlib.blake2b(f"{seed}\n{document}".encode("utf-8", "surrogatepass")).digest()

    wanted = fraction * sum(sizes.values())
    chosen: set[str] = set()
    taken = 0
    for document in sorted(sizes, key=order):
        # Take it if that comes closer; the last document always stays in training.
        closer = abs(taken + sizes[document] - wanted) < abs(taken - wanted)
        if closer and len(chosen) < len(sizes) - 1:
            chosen.add(document)
            taken += sizes[document]
    if not chosen:  # every document has more than twice the wanted size
        chosen.add(min(sizes, key=lambda document: (sizes[document], order(document))))
    train = [document for document in documents if document not in chosen]
    return train, [document for document in documents if document in chosen]
