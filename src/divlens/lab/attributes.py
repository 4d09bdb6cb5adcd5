"""The attributes of a scene, the values that each can take, and the words for them.

A scene is one value of each: which thing is shown, in which style of drawing, on a background of which colour, how
large, where, and whether it is mirrored. No word belongs to two attributes, so that a caption has one reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What is shown, and the Unicode name of the emoji that shows it. Names hold no colour: "red" would be a background too.
CONCEPTS = {
    "airplane": "airplane",
    "alarm clock": "alarm clock",
    "anchor": "anchor",
    "apple": "red apple",
    "avocado": "avocado",
    "balloon": "balloon",
    "bomb": "bomb",
    "bus": "bus",
    "cactus": "cactus",
    "car": "automobile",
    "carrot": "carrot",
    "cat": "cat face",
    "cheese": "cheese wedge",
    "cherries": "cherries",
    "chick": "baby chick",
    "chili pepper": "hot pepper",
    "church": "church",
    "clover": "four leaf clover",
    "corn": "ear of corn",
    "croissant": "croissant",
    "crown": "crown",
    "dog": "dog face",
    "door": "door",
    "doughnut": "doughnut",
    "eggplant": "eggplant",
    "fir tree": "evergreen tree",
    "fire": "fire",
    "fish": "fish",
    "football": "american football",
    "fox": "fox",
    "french fries": "french fries",
    "fuel pump": "fuel pump",
    "grapes": "grapes",
    "guitar": "guitar",
    "hamburger": "hamburger",
    "hammer": "hammer",
    "heart": "red heart",
    "jeans": "jeans",
    "key": "key",
    "koala": "koala",
    "ladybug": "lady beetle",
    "lion": "lion",
    "lollipop": "lollipop",
    "maple leaf": "maple leaf",
    "mushroom": "mushroom",
    "palette": "artist palette",
    "palm tree": "palm tree",
    "panda": "panda",
    "penguin": "penguin",
    "pineapple": "pineapple",
    "pumpkin": "jack-o-lantern",
    "rainbow": "rainbow",
    "rocket": "rocket",
    "sailboat": "sailboat",
    "saxophone": "saxophone",
    "star": "star",
    "sunflower": "sunflower",
    "tractor": "tractor",
    "trophy": "trophy",
    "tulip": "tulip",
    "turtle": "turtle",
    "umbrella": "umbrella",
    "volcano": "volcano",
    "watermelon": "watermelon",
}
# Names that take no article: of several things, or of a substance.
BARE = frozenset({"cheese", "cherries", "corn", "fire", "french fries", "grapes", "jeans"})
# The word for each style of drawing, and the set of icons that is drawn in it.
STYLES = {
    "noto": "noto",
    "vintage": "noto-v1",
    "twemoji": "twemoji",
    "glossy": "fluent-emoji",
    "flat": "fluent-emoji-flat",
    "emojione": "emojione",
}
# Background colours as red, green, blue of 255: lighter than what is drawn, so that it stands out.
BACKGROUNDS = {
    "white": (255, 255, 255),
    "gray": (158, 160, 164),
    "pink": (250, 178, 205),
    "orange": (252, 176, 108),
    "yellow": (252, 232, 130),
    "green": (150, 214, 150),
    "blue": (132, 186, 242),
    "purple": (184, 160, 226),
}
SIZES = ("large", "small")
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
MIRRORS = ("as drawn", "mirrored")  # never said in a caption


@dataclass(frozen=True)
class Attribute:
    """One thing that a scene fixes; `values` are its possible values, by the words that name them."""

    name: str
    values: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("concept", tuple(CONCEPTS)),
    Attribute("style", tuple(STYLES)),
    Attribute("background", tuple(BACKGROUNDS)),
    Attribute("size", SIZES),
    Attribute("place", PLACES),
    Attribute("mirror", MIRRORS),
)
CONCEPT, STYLE, BACKGROUND, SIZE, PLACE, MIRROR = range(len(ATTRIBUTES))


def sizes_of(attributes: Sequence[Attribute] = ATTRIBUTES) -> tuple[int, ...]:
    """How many values each attribute has."""
    return tuple(len(attribute) for attribute in attributes)
