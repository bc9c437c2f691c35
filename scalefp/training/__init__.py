"""How networks and fingerprint are trained together.

``loop`` is the training from first to last image, ``step`` what one step computes, ``losses`` its
named terms, ``schedule`` what changes while it goes on, ``state`` what is saved and resumed.
"""

from scalefp.training.loop import train
from scalefp.training.schedule import Progress
from scalefp.training.state import TrainingState

__all__ = ["Progress", "TrainingState", "train"]
