"""The script of a character (Latin, Han, ...), as far as training a SentencePiece model needs it.

SentencePiece has its own table, made from Unicode 9; a character without an entry is "Common".  The
scripts of Unicode 9 are listed here, so that later scripts are Common, too.  A character added to
one of these scripts later has that script here, but is Common there.
"""

from __future__ import annotations

from functools import lru_cache

import regex

# Everything else is Common: digits, punctuation, symbols and characters of several scripts.
_SCRIPTS = """
Latin Greek Cyrillic Han Hiragana Katakana Hangul Arabic Hebrew Devanagari Thai Inherited
Adlam Ahom Anatolian_Hieroglyphs Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki
Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham
Cherokee Coptic Cuneiform Cypriot Deseret Duployan Egyptian_Hieroglyphs Elbasan Ethiopic Georgian
Glagolitic Gothic Grantha Gujarati Gurmukhi Hanunoo Hatran Imperial_Aramaic Inscriptional_Pahlavi
Inscriptional_Parthian Javanese Kaithi Kannada Kayah_Li Kharoshthi Khmer Khojki Khudawadi Lao
Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Malayalam Mandaic Manichaean Marchen
Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian Mro Multani
Myanmar Nabataean New_Tai_Lue Newa Nko Ogham Ol_Chiki Old_Hungarian Old_Italic Old_North_Arabian
Old_Permic Old_Persian Old_South_Arabian Old_Turkic Oriya Osage Osmanya Pahawh_Hmong Palmyrene
Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada Shavian
Siddham SignWriting Sinhala Sora_Sompeng Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le
Tai_Tham Tai_Viet Takri Tamil Tangut Telugu Thaana Tibetan Tifinagh Tirhuta Ugaritic Vai
Warang_Citi Yi
""".split()


@lru_cache(maxsize=1)
def _pattern() -> regex.Pattern:
    return regex.compile("|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in _SCRIPTS))


def script(char: str) -> str:
    """The name of the script, "Common" if it is not among those above."""
    found = _pattern().match(char)
    return (found.lastgroup if found else None) or "Common"
