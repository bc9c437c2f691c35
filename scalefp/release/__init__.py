"""What a training leaves to its owner, and what he hands out.

``model`` is the release of a generator; ``reader`` reads images, searching for crops and turns by
``alignment``: with the carriers as a matched filter (``matched``, ``matching``), or by ``trials``
where there are none. ``folding`` puts a key into the weights, giving an ``instance``; ``container``
is the file format of all of them, ``export`` writes ONNX and ``torch.export`` files.
"""

from scalefp.release.instance import Instance, InstanceConfig, instantiate, load_instance
from scalefp.release.model import Model, read_release, save_release
from scalefp.release.reader import Reader

__all__ = [
    "Instance",
    "InstanceConfig",
    "Model",
    "Reader",
    "instantiate",
    "load_instance",
    "read_release",
    "save_release",
]
