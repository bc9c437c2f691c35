"""Image perturbations that a fingerprint must survive: one table for training, evaluation, tests.

Each entry has the real operation on an 8-bit picture, a form of it for batches in training through
which gradients flow, a random range of strengths for training and the strengths to test at.
"""

from scalefp.perturb.chance import Chance
from scalefp.perturb.codecs import jpeg, reencode, webp
from scalefp.perturb.entry import Perturbation
from scalefp.perturb.filters import resize
from scalefp.perturb.table import PERTURBATIONS
from scalefp.perturb.training import check_names, perturb_images

__all__ = [
    "PERTURBATIONS",
    "Chance",
    "Perturbation",
    "check_names",
    "jpeg",
    "perturb_images",
    "reencode",
    "resize",
    "webp",
]
