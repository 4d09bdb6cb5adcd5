"""The cleaning of captions against diffusers' copy of the same rules, and the padding on the left."""

import html
import random
import re
from types import SimpleNamespace

import pytest
import torch
from diffusers.pipelines.pixart_alpha import pipeline_pixart_alpha

from divlens.models.llamagen.captions import clean_caption, left_padded
from divlens.models.zoo.prompts import default_prompts

# Pieces that some rule is about, or nearly about.
PIECES = [
    *("a red heart", "Blue SKY", "<person>", "https://a.b/c?d=e", "www:x", "shop.com", "me@shop.com", "a.b.co.uk/x_y"),
    *("<b>bold</b>", "<br/>", "@nick", "\u4e00\u9fff", "\u3300", "\u2013", "\u2014\u2014", "\u201cquoted\u201d"),
    *("\u2018s", "10.0.0.255", "1:23 ", "\\n", "#12", "#1234", "#123456", "1234567", "photo.png", "a.b.webp", "''"),
    *("'\"'", "...", " . ", "(c)", "[x]", "{y}", "a|b", "a\\b", "a/b", "***", "~", "#", "a-b_c-d_e", "x-y", "jc6640"),
    *("jc6640vc", "6640vc231", "free shipping", "worldwide  free shipping", "free download", "download free"),
    *("7\u04458", "click for more", "click on it", "png images", "jpeg", "page 12", "j2d1a2a", "10x20", "3.5\u00d74"),
    *("2 \u0445 3", "%41", "a+b", "  ", "\n", "\t"),
    *("word : word", "a,b", "a.b", "'", '"', ":", "-", "+", "_", ",", ".x", "100%"),
]  # fmt: skip


@pytest.fixture
def reference(monkeypatch):
    """diffusers' function, twice, as in its pipeline. The two packages it needs are stood in for: for text without
    broken encodings, and tags without entities, they do no more than to drop control characters and tags. LlamaGen's
    copy of the rules differs in one place: it strips the text right after the first package."""

    def fix_text(text):
        return "".join(c for c in text if c.isprintable() or c.isspace()).strip()

    monkeypatch.setattr(pipeline_pixart_alpha, "ftfy", SimpleNamespace(fix_text=fix_text), raising=False)

    def soup(text, features):
        return SimpleNamespace(text=re.sub(r"</?[a-z][^>]*>", "", text))

    monkeypatch.setattr(pipeline_pixart_alpha, "BeautifulSoup", soup, raising=False)
    pipeline = object.__new__(pipeline_pixart_alpha.PixArtAlphaPipeline)

    def clean(caption: str) -> str:
        return pipeline._clean_caption(pipeline._clean_caption(caption))

    return clean


def test_as_the_reference_on_pieces_and_their_mixtures(reference):
    pick = random.Random(0)
    mixtures = [pick.choice(["", " "]).join(pick.choices(PIECES, k=pick.randint(2, 6))) for _ in range(3000)]
    differing = [text for text in PIECES + mixtures if clean_caption(text) != reference(text)]
    assert not differing, [(text, clean_caption(text), reference(text)) for text in differing[:5]]
    # The twin: most of them are changed by the rules.
    assert sum(clean_caption(text) != text.strip().lower() for text in mixtures) > 2000


@pytest.mark.parametrize("prompt", [prompt.text for prompt in default_prompts()])
def test_plain_prompts_stay_as_they_are(prompt):
    assert clean_caption(prompt) == prompt.lower()


@pytest.mark.parametrize(
    "caption, clean",
    [
        ("A <b>big</b>   Cat", "a big cat"),
        ("cat &amp; dog", "cat dog"),
        ("x &lt; y", "x < y"),
        ("i <3 you", "i <3 you"),
        ("a<script>run()</script> cat", "a cat"),
        ("caf\u00e9 and cafe\u0301", "caf\u00e9 and caf\u00e9"),
        ("\ufb01ne \uff43\uff41\uff54", "fine cat"),
        ("a\x07 cat\x00", "a cat"),
        ("\u7ea2\u5fc3", ""),
        ("", ""),
    ],
)
def test_what_the_two_packages_do(caption, clean):
    assert clean_caption(caption) == clean


def test_cleaning_never_fails():
    pick = random.Random(1)
    for _ in range(300):
        text = "".join(chr(pick.choice([pick.randrange(32, 127), pick.randrange(0xD7FF)])) for _ in range(30))
        assert clean_caption(html.escape(text)) == clean_caption(html.escape(text)).strip()
        clean_caption(text)


def test_padding_goes_to_the_left():
    tokens = torch.arange(1.0, 7.0).view(3, 2)
    padded = left_padded(tokens, 5)
    assert padded.tolist() == [[0, 0, 0], [0, 0, 0], [1, 2, 1], [3, 4, 1], [5, 6, 1]]
    assert torch.equal(left_padded(tokens, 3)[:, :-1], tokens)
