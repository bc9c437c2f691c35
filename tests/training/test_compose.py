"""A training's options from Python: those of the command line, in any program."""

import subprocess
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from scalefp.config import TrainConfig
from scalefp.training.compose import compose_training


def test_options_are_those_of_the_command_line() -> None:
    config = compose_training(["experiment=tiny", "schedule.total_images=640"])
    assert (config.name, config.model.n_bits, config.schedule.total_images) == ("tiny", 64, 640)
    assert compose_training().schedule == TrainConfig().schedule
    with pytest.raises(HydraException, match="nowhere"):
        compose_training(["experiment=nowhere"])
    assert not GlobalHydra.instance().is_initialized()


def test_a_program_needs_to_import_nothing_else() -> None:
    # In a process of its own: here other tests have loaded what registers the options.
    script = (
        "import sys\n"
        "from scalefp.training.compose import compose_training as compose\n"
        "assert compose(['experiment=tiny', 'seed=7']).seed == 7\n"
        "assert 'scalefp.cli' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
