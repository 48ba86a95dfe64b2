"""What a checkpoint may be had as."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """A checkpoint's forms."""

    PT2 = "pt2"
    SAFETENSORS = "safetensors"
    RECIPE = "recipe"
    ONNX = "onnx"
    INT8 = "int8"
    CARD = "card"

    @property
    def extension(self) -> str:
        """Of a file in this form."""
        return _EXTENSIONS.get(self, self.value)

    @property
    def media_type(self) -> str:
        """Of a file in this form."""
        return "application/json" if self.extension.endswith("json") else "application/octet-stream"


_EXTENSIONS = {Format.RECIPE: "json", Format.INT8: "int8.onnx", Format.CARD: "card.json"}
