"""What the tests of marks share: a marker that writes and reads without training, and pictures."""

from pathlib import Path

import pytest
import torch

from scalefp.artificial.config import MarkConfig
from scalefp.artificial.encoder import Encoder
from scalefp.artificial.marker import Marker, save_marker
from scalefp.artificial.start import start_fitted
from scalefp.data.images import save_png, to_float, to_pil, to_tensor
from scalefp.data.source import Source, bundled_data
from scalefp.loading import load_marker
from scalefp.networks.decoder import Decoder


@pytest.fixture(scope="session")
def pictures() -> torch.Tensor:
    """130 emoji, uint8 [130, 3, 32, 32]."""
    with Source(bundled_data()) as entries:
        numbers = range(0, len(entries.names), len(entries.names) // 129)
        return to_tensor([entries.read(i) for i in numbers], 32)[:130]


@pytest.fixture(scope="session")
def pen_file(tmp_path_factory: pytest.TempPathFactory, pictures: torch.Tensor) -> Path:
    """Path of a marker of 32 bits at 26 dB, as training starts it: it reads nearly all bits."""
    torch.manual_seed(0)
    config = MarkConfig(
        resolution=32, n_bits=32, psnr=26, encoder_width=4, decoder_base=384, decoder_max=24
    )
    encoder, decoder = Encoder(config), Decoder(config)
    start_fitted(encoder, decoder, to_float(pictures[20:]), torch.Generator().manual_seed(0))
    with torch.no_grad():  # the trunk has learned nothing yet
        decoder.output.weight.mul_(0.1)
    path = tmp_path_factory.mktemp("marker") / "pen.safetensors"
    save_marker(path, config, encoder, decoder, training={"images": 0})
    return path


@pytest.fixture(scope="session")
def pen(pen_file: Path) -> Marker:
    """That marker in memory."""
    return load_marker(pen_file)


@pytest.fixture
def photos(tmp_path: Path, pictures: torch.Tensor) -> Path:
    """A folder of 12 emoji at 32x32 that are new to the marker: 0.png to 9.png, b/10.png, ..."""
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    for i, picture in enumerate(to_pil(pictures[:12])):
        save_png(folder / (f"{i}.png" if i < 10 else f"b/{i}.png"), picture)
    return folder
