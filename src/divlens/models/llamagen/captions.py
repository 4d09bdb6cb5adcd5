"""What LlamaGen does to a caption before its transformer: the cleaning it was trained with, and padding on the left.

The rules are those of DeepFloyd IF and PixArt, which LlamaGen took over. Two steps of theirs use packages (ftfy and
Beautiful Soup) whose work is done here by the standard library. What is not done is ftfy's repair of text that was
decoded in the wrong encoding.
"""

from __future__ import annotations

import html
import re
import unicodedata
import urllib.parse
from collections.abc import Sequence
from html.parser import HTMLParser

from jaxtyping import Float
from torch import Tensor

Rules = Sequence[tuple[str, str]]  # pattern and replacement, in order

DOMAIN = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
FILE_TYPES = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
DASHES = (
    "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40"
    "\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)
WORD_JOINERS = re.compile("[-_]")
UNREAD_ELEMENTS = ("script", "style", "template")

ADDRESSES: Rules = (
    ("<person>", "person"),
    (rf"\b(?:https?:(?:/{{1,3}}|[a-zA-Z0-9%])|{DOMAIN})", ""),
    (rf"\b(?:www:(?:/{{1,3}}|[a-zA-Z0-9%])|{DOMAIN})", ""),
)
CHARACTERS: Rules = (
    (r"@\w+\b", ""),  # nicknames
    ("[\u31c0-\u9fff]+", ""),  # Chinese, Japanese and Korean signs
    (f"[{DASHES}]+", "-"),
    ("[`\u00b4\u00ab\u00bb\u201c\u201d\u00a8]", '"'),
    ("[\u2018\u2019]", "'"),
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # internet addresses
    (r"\d:\d\d\s+$", ""),  # the number of an article
    (r"\\n", " "),  # a line break that was written out
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"\S+\.(?:{FILE_TYPES})", ""),
    (r"""["']{2,}""", '"'),
    (r"\.{2,}", " "),
    ("[#\u00ae\u2022\u00a9\u2122&@\u00b7\u00ba\u00bd\u00be\u00bf\u00a1\u00a7~()\\[\\]{}|\\\\/*]+", " "),
    (r"\s+\.\s+", " "),
)
SHOP_TALK: Rules = (
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # numbers of goods
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    (r"\b\d+[a-zA-Z]+\d+\b", ""),
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{FILE_TYPES})(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    ("\\b\\d+\\.?\\d*[x\u0445\u00d7]\\d+\\.?\\d*\\b", ""),  # a size; the second x is Cyrillic
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
)
ENDS: Rules = (
    (r"""^["']([\w\W]+)["']$""", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)


class TextOfMarkup(HTMLParser):
    """Collects what a page would show as text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.unread = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.unread += tag in UNREAD_ELEMENTS

    def handle_endtag(self, tag: str) -> None:
        self.unread = max(0, self.unread - (tag in UNREAD_ELEMENTS))

    def handle_data(self, data: str) -> None:
        if not self.unread:
            self.pieces.append(data)


def without_markup(text: str) -> str:
    parser = TextOfMarkup()
    parser.feed(text)
    parser.close()
    return "".join(parser.pieces)


def rewritten(text: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text


def plain_characters(text: str) -> str:
    """Ligatures and full-width letters as the usual ones, combining accents joined, no control characters."""
    folded = "".join(
        unicodedata.normalize("NFKC", c) if "\ufb00" <= c <= "\ufb06" or "\uff01" <= c <= "\uff5e" else c for c in text
    )
    kept = (c for c in unicodedata.normalize("NFC", folded) if unicodedata.category(c) != "Cc" or c in "\t\n\f\r")
    return "".join(kept)


def cleaned_once(caption: str) -> str:
    text = urllib.parse.unquote_plus(caption).strip().lower()
    text = rewritten(without_markup(rewritten(text, ADDRESSES)), CHARACTERS)
    if len(WORD_JOINERS.findall(text)) > 3:
        text = WORD_JOINERS.sub(" ", text)  # words-joined-like-these
    text = html.unescape(html.unescape(plain_characters(text))).strip()
    return rewritten(rewritten(text, SHOP_TALK), ENDS).strip()


def clean_caption(caption: str) -> str:
    """A caption as LlamaGen's transformer knows it: lower case, without addresses, markup, file names, shop talk and
    rare punctuation. The rules are gone through twice, as in training. May be empty."""
    return cleaned_once(cleaned_once(caption))


def left_padded(tokens: Float[Tensor, "length d"], limit: int) -> Float[Tensor, "limit d_and_mask"]:
    """A caption's features at the end of `limit` rows of zeros; the last column is 1 where there is a token."""
    padded = tokens.new_zeros(limit, tokens.shape[1] + 1)
    padded[limit - len(tokens) :, :-1] = tokens
    padded[limit - len(tokens) :, -1] = 1
    return padded
