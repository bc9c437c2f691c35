"""Networks that others trained: key modulation attached, trained, and folded away again."""

from scalefp.pretrained.checking import LiftCheck, lift_check
from scalefp.pretrained.modulation import Parent, modulate

__all__ = ["LiftCheck", "Parent", "lift_check", "modulate"]
