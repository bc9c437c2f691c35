"""Images: files and pixels (``images``), where many come from (``source``), sets in memory for
training (``dataset``), and sets written anew (``prepare``).
"""

from scalefp.data.dataset import ImageSet
from scalefp.data.images import read_image, save_png, to_float, to_pil, to_tensor, to_uint8
from scalefp.data.source import Source, resolve_source

__all__ = [
    "ImageSet",
    "Source",
    "read_image",
    "resolve_source",
    "save_png",
    "to_float",
    "to_pil",
    "to_tensor",
    "to_uint8",
]
