"""How networks and fingerprint are trained together.

``loop`` is every training from first to last image, ``generator`` the one of generator and decoder,
``step`` what one step of it computes, ``losses`` its named terms, ``schedule`` what changes while
it goes on, ``state`` what is saved and resumed.
"""

from scalefp.training.generator import train
from scalefp.training.schedule import Progress
from scalefp.training.state import TrainingState

__all__ = ["Progress", "TrainingState", "train"]
