"""Networks that others trained: key modulation attached, trained, and folded away again."""

from scalefp.pretrained.modulation import Parent, modulate

__all__ = ["Parent", "modulate"]
