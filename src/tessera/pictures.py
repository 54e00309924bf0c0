"""Images as datasets hold them: encoded, and perhaps on their side or broken."""

import io
import struct
import zlib
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageOps

from tessera.errors import UserError
from tessera.examples import IMAGE_FORMATS

# The ways in which Pillow's decoders meet broken bytes.
BROKEN = (
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a dataset as it is stored there, and the example that it is."""

    example: str
    encoded: bytes


def _undecodable(picture: Picture) -> UserError:
    return UserError(f"example '{picture.example}'", "its image cannot be decoded", "remove it from the dataset")


def upright_size(picture: Picture) -> tuple[int, int]:
    """Width and height of the upright image, from its header alone."""
    try:
        with Image.open(io.BytesIO(picture.encoded), formats=IMAGE_FORMATS) as image:
            width, height = image.size
            on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except BROKEN as error:
        raise _undecodable(picture) from error
    return (height, width) if on_its_side else (width, height)


def decode(picture: Picture) -> Image.Image:
    """The upright image in colour; a camera may store it on its side."""
    try:
        with Image.open(io.BytesIO(picture.encoded), formats=IMAGE_FORMATS) as image:
            upright = ImageOps.exif_transpose(image)
            # Pillow asks for the way over RGBA where a palette has transparent colours.
            return (upright.convert("RGBA") if "transparency" in upright.info else upright).convert("RGB")
    except BROKEN as error:
        raise _undecodable(picture) from error
