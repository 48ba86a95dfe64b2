"""Encoded images, one at a time, by Pillow and within limits: a few formats, a bounded size, one frame, eight bits."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pruners.errors import InvalidInput, reason
from workers.arrays import Column

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 2**24  # 4096 × 4096; networks take a thousandth of it, and a header may claim any size

_GREY, _COLOUR = ("1", "L"), ("RGB", "P", "CMYK", "YCbCr", "LAB", "HSV")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)

Images = Callable[[], Iterator[tuple[str, bytes]]]
"""All images of a file in order: what errors call it, and its bytes."""


@dataclass(frozen=True)
class Kind:
    """What the images of a data set have in common: Pillow's mode, ``L`` or ``RGB``, and width and height."""

    mode: str
    width: int
    height: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels first, as networks take them."""
        return (1 if self.mode == "L" else 3, self.height, self.width)


def common_kind(images: Images) -> Kind:
    """Looks at every image's header; grey ones among coloured ones become coloured.

    Raises:
        InvalidInput: one that is no image, or too large, animated, transparent, of more than eight bits, or of another size.
    """
    modes, size = set[str](), (0, 0)
    for name, content in images():
        with _opened(name, content) as image:
            if modes and image.size != size:
                found, first = (f"{width}×{height}" for width, height in (image.size, size))
                raise InvalidInput(name, None, f"has {found} pixels, but the first image {first}; make them one size")
            modes.add("L" if image.mode in _GREY else "RGB")
            size = image.size
    return Kind("RGB" if "RGB" in modes else "L", *size)


def pixels(images: Images, kind: Kind, chosen: NDArray[np.int64]) -> Column:
    """The images of these numbers as ``uint8`` ``[n, channels, height, width]``, decoded when they are asked for."""

    def pieces() -> Iterator[NDArray[np.uint8]]:
        wanted = set(chosen.tolist())
        for number, (name, content) in enumerate(images()):
            if number in wanted:
                yield _decoded(name, content, kind)[None]

    return Column(np.dtype("u1"), (len(chosen), *kind.shape), pieces)


def _decoded(name: str, content: bytes, kind: Kind) -> NDArray[np.uint8]:
    with _opened(name, content) as image:
        try:
            pixels = np.asarray(image.convert(kind.mode), np.uint8)
        except _BROKEN as error:
            raise InvalidInput(name, None, f"cannot be decoded ({reason(error)}); save it again") from error
    return pixels[None] if kind.mode == "L" else pixels.transpose(2, 0, 1)


def _opened(name: str, content: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow only warns of what is twice too large, or broken in places
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            frames = getattr(image, "n_frames", 1)
        except (*_BROKEN, Warning) as error:
            raise InvalidInput(name, None, f"is no image in one of {', '.join(FORMATS)}; leave it out") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InvalidInput(name, f"{width}×{height}", f"has more than {MAX_PIXELS:,} pixels; make it smaller")
    if frames > 1:
        raise InvalidInput(name, None, "is animated; save one frame")
    if image.mode not in (*_GREY, *_COLOUR) or "transparency" in image.info:
        raise InvalidInput(name, image.mode, "is transparent or has more than eight bits; save it as plain grey or RGB")
    return image
