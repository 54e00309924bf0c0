"""Images for a page: small ones, each once, and the grid of patches that a model reads of them."""

import base64
import io
from collections.abc import Iterable
from math import isqrt
from pathlib import Path
from typing import Any

from PIL import Image

from tessera.files import read_json
from tessera.pictures import Picture, decode

LARGEST = 96
QUALITY = 80
# Where models keep what is done to an image, and under which key.
CONFIGS = (("processor_config.json", "image_processor"), ("preprocessor_config.json", None))


def shown(pictures: Iterable[Picture], model: Path) -> dict[str, str]:
    """Example -> its image as an address that holds it, cropped as the model sees it and never larger than it is."""
    cropped = _is_cropped(model)
    return {picture.example: _address(decode(picture), cropped) for picture in pictures}


def grid(patches: int) -> list[int]:
    """Rows and columns of so many patches. Vision towers read squares; other numbers of patches are one row."""
    side = isqrt(patches)
    return [side, side] if side * side == patches else [1, patches]


def _is_cropped(model: Path) -> bool:
    """Whether the model sees the central square alone."""
    for name, key in CONFIGS:
        if (model / name).is_file():
            found: dict[str, Any] = read_json(model / name)
            found = found.get(key) or {} if key else found
            if "do_center_crop" in found:
                return bool(found["do_center_crop"])
    return False


def _address(image: Image.Image, cropped: bool) -> str:
    if cropped:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    image.thumbnail((LARGEST, LARGEST))
    # Drawings pack better as PNG, photographs as JPEG.
    packed = {"png": _packed(image, "PNG", optimize=True), "jpeg": _packed(image, "JPEG", quality=QUALITY)}
    kind = min(packed, key=lambda kind: len(packed[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(packed[kind]).decode()}"


def _packed(image: Image.Image, form: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()
