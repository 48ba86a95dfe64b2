"""What a checkpoint may be had as."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """A checkpoint's forms."""

    PT2 = "pt2"
    SAFETENSORS = "safetensors"
    RECIPE = "recipe"
    ONNX = "onnx"

    @property
    def extension(self) -> str:
        """Of a file in this form."""
        return "json" if self is Format.RECIPE else self.value
