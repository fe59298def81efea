"""The step of the corpus pipeline that masks personal data, or drops its lines or documents."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from ...arguments import (
    check_choice,
    check_flag,
    check_key,
    check_text,
    known_arguments,
    wrong,
)
from ..pipeline.step import Document, Result, Step
from .find import KINDS, Span, check_kinds, find

MASKS = {
    "mail": "<EMAIL>",
    "identity": "<IDENTITY_NUMBER>",
    "card": "<CARD_NUMBER>",
    "ip": "<IP_ADDRESS>",
    "phone": "<PHONE>",
    "address": "<STREET_ADDRESS>",
    "name": "<NAME>",
}
BY_FORM = ("mail", "identity", "card", "ip", "phone")  # what has a form of its own
ACTIONS = ("mask", "drop line", "drop document")


@known_arguments
def privacy(
    *,
    kinds: Collection[str] = BY_FORM,
    action: str = "mask",
    masks: Mapping[str, str] | None = None,
    pseudonyms: int | None = None,
    public_only: bool = True,
    old_identity: bool = False,
) -> Step:
    """Finds personal data by rules, and masks it or drops its line or document.

    kinds: some of mail, identity (Chinese identity numbers), card, ip, phone, address (English and
    Chinese streets) and name (after or before a title).  The last two are left out by default:
    they also occur in what has been published, such as novels.
    action: "mask", "drop line" or "drop document".
    masks: {kind: text to write}, in place of those of MASKS.
    pseudonyms: a secret key of 64 bits; the mask then ends with 8 digits of a keyed hash, as in
    "<EMAIL:1f0c29aa>", the same for the same value in every document.  Whoever knows the key can
    try all phone numbers.
    public_only: leave out IP addresses of private networks.   old_identity: also the identity
    numbers of 15 digits, which have no check digit.

    The counts say how many of each kind were masked, or why lines or the document were dropped.  A
    document without a line left is dropped.   ValueError for a wrong argument.
    """
    check_kinds("privacy: kinds", kinds)
    kinds = tuple(kinds)
    check_choice("privacy: action", action, ACTIONS)
    if masks is not None and not isinstance(masks, Mapping):
        raise wrong("privacy: masks", "a table {kind: text}", masks)
    for kind, mask in (masks or {}).items():
        check_choice("privacy: masks", kind, tuple(KINDS))
        check_text(f"privacy: masks: {kind}", mask)
    check_key("privacy: pseudonyms", pseudonyms, or_none=True)
    check_flag("privacy: public_only", public_only)
    check_flag("privacy: old_identity", old_identity)
    texts = {**MASKS, **(masks or {})}
    return _Privacy(kinds, action, texts, pseudonyms, bool(public_only), bool(old_identity))


@dataclasses.dataclass(frozen=True)
class _Privacy:
    """The step; an object with settings alone, so that it can be sent to other processes."""

    kinds: tuple[str, ...]
    action: str
    masks: Mapping[str, str]
    pseudonyms: int | None
    public_only: bool
    old_identity: bool

    def __call__(self, document: Document) -> Result:
        text = document.text
        spans = find(text, self.kinds, public_only=self.public_only, old_identity=self.old_identity)
        if not spans:
            return document, {}
        if self.action == "drop document":
            kinds = {KINDS[span.kind] for span in spans}
            return None, {f"documents with {kind}": 1 for kind in sorted(kinds)}
        if self.action == "drop line":
            return self._without_lines(document, spans)
        counts = Counter(f"{KINDS[span.kind]} masked" for span in spans)
        return document._replace(text=self.masked(text, spans)), dict(counts)

    def masked(self, text: str, spans: Iterable[Span]) -> str:
        """The text with a mask in place of each span."""
        parts, place = [], 0
        for start, end, kind in spans:
            parts += [text[place:start], self._mask(text[start:end], kind)]
            place = end
        return "".join([*parts, text[place:]])

    def _mask(self, value: str, kind: str) -> str:
        mask = self.masks[kind]
        if self.pseudonyms is None:
            return mask
        same = re.sub(r"[^\w@+.:]" if kind in ("mail", "ip") else r"[\W_]", "", value).casefold()
        key = self.pseudonyms.to_bytes(8, "little")
        data = f"{kind}\n{same}".encode("utf-8", "surrogatepass")
        digits = hashlib.blake2b(data, digest_size=4, key=key).hexdigest()
        return f"{mask[:-1]}:{digits}{mask[-1]}" if mask.endswith((">", "]")) else f"{mask}{digits}"

    @staticmethod
    def _without_lines(document: Document, spans: list[Span]) -> Result:
        text, counts = document.text, Counter[str]()
        parts, place = [], 0  # place: where the text begins that is not yet decided
        for span in spans:
            if span.start < place:  # on a line already dropped
                continue
            begin = text.rfind("\n", place, span.start) + 1 or place
            end = text.find("\n", span.end) + 1 or len(text)
            parts.append(text[place:begin])
            counts[f"lines with {KINDS[span.kind]} dropped"] += 1
            place = end
        left = "".join([*parts, text[place:]])
        return (document._replace(text=left) if left.strip() else None), dict(counts)
