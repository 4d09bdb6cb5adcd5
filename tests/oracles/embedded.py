"""The pictures that a page holds, as pixels."""

import base64
import io

import numpy as np
from PIL import Image


def picture(address: str) -> np.ndarray:
    kind, _, content = address.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
