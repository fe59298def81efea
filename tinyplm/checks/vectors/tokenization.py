"""Tokenizers: each kind trained on a text of ours, and the ids of hard texts in many languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...files import write_json
from ...tokenizers import RECIPES, Tokenizer
from ...tokenizers.files.tokenizer_json import from_json, to_json

NAMES = {f"tokenizer_{kind.lower().replace(' ', '_').replace('-', '_')}": kind for kind in RECIPES}
VOCABULARY = 520

TRAINING = [
    "A model reads a text from left to right and predicts the next word.",
    "It has never seen a word: it reads numbers, one for each piece of the text.",
    "The pieces are learned from a text like this one, by counting what stands next to what.",
    "Reading, reader, readable; writing, writer, written; lower, lowest, newer, newest.",
    "Counting to ten: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10. The year 2024 had 366 days.",
    "def read(text):\n    return [piece for piece in text.split()]  # pieces of the text",
    "Das Modell liest einen Text und sagt das nächste Wort voraus; größere Modelle lesen mehr.",
    "Le modèle lit un texte de gauche à droite, et prédit le mot qui suit.",
    "El modelo lee un texto y predice la palabra que sigue. ¿Qué palabra será?",
    "Модель читает текст и предсказывает следующее слово.",
    "Το μοντέλο διαβάζει ένα κείμενο και προβλέπει την επόμενη λέξη.",
    "模型读一段文字，然后预测下一个词。",
    "モデルは文章を読んで、次の単語を予測します。",
    "모델은 글을 읽고 다음 단어를 예측한다.",
    "يقرأ النموذج النص ويتوقع الكلمة التالية.",
    "मॉडल पाठ पढ़ता है और अगले शब्द का अनुमान लगाता है।",
]

TEXTS = [
    "", " ", "a", "A text.", "reading the newest text", "unreadable", "  two  spaces  ",
    "tab\tand\nnew lines\r\n\n\nthree", " leading", "trailing ", "CamelCase and SNAKE_CASE_42",
    "it's, we'll, they've; don't — can’t", "3.14159 1,000,000 0x1F 12345678901234567890",
    "def f(x):\n\treturn x ** 2  # π ≈ 3.14", "https://example.org/a?b=c&d=%20#e",
    "größer als Straße, ÄÖÜ ẞ", "élève œuvre naïve façade", "e\u0301le\u0300ve decomposed",
    "¿Qué palabra? ¡Ésta!", "Следующее СЛОВО, ёлка", "επόμενη ΛΈΞΗ ς σ Σ", "İstanbul ıI",
    "下一个词是什么？模型", "次の単語を予測します。カタカナ", "다음 단어 한글 \u1112\u1161\u11ab",
    "النموذج والكلمة", "עברית מימין לשמאל", "अगले शब्द क्षि", "ภาษาไทยไม่มีช่องว่าง",
    "👍 👍🏽 👩\u200d👩\u200d👧 🇩🇪 ❤\ufe0f", "𝒎𝒂𝒕𝒉 ℝ ⅷ ﬁ ①", "zero\u200bwidth\u00a0nbsp\u3000wide",
    "null\u0000 and \u001b[0m control", "\ufeffbyte order mark", "replacement \ufffd char",
    "a" * 64, "ab" * 40, "数" * 20, "x" * 130 + " long word", "a\u0300\u0301\u0302\u0303 stacked",
    "<|endoftext|> [CLS] [MASK] <unk> </s>", "▁ Ġ ## </w>", "\n", "\t\t", "\u2028line separator",
]  # fmt: skip


def trained(name: str) -> Tokenizer:
    return Tokenizer.train(TRAINING, VOCABULARY, kind=NAMES[name])


def encoded(tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """What a tokenizer makes of a text: offsets count characters (code points)."""
    encoding = tokenizer.encoding(text, add_special_tokens=False)
    return {
        "text": text,
        "ids": tokenizer.encode(text),
        "tokens": list(encoding.tokens),
        "offsets": [list(span) for span in encoding.offsets],
        "ids_with_special_tokens": tokenizer.encode(text, add_special_tokens=True),
        "decoded": tokenizer.decode(tokenizer.encode(text)),
    }


def write_file(name: str, path: Path) -> int:
    """The file of a tokenizer; the number of its texts."""
    tokenizer = trained(name)
    training = {"kind": NAMES[name], "vocab_size": VOCABULARY, "texts": TRAINING}
    content = {
        "training": training,
        "tokenizer": to_json(tokenizer),
        "texts": [encoded(tokenizer, text) for text in TEXTS],
    }
    write_json(path, content)
    return len(TEXTS)


def differences(content: dict[str, Any], where: str) -> list[str]:
    """The texts of which the installed version makes something else, and what differs."""
    tokenizer = Tokenizer(**from_json(content["tokenizer"], where))
    found = []
    for case in content["texts"]:
        now = encoded(tokenizer, case["text"])
        found += [f"{case['text']!r}: {n}" for n in now if now[n] != case[n]]
    return found
