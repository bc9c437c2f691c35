"""A recipient's network as a repository of the Hugging Face Hub, as far as that needs no hub."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scalefp
from scalefp.key import Key

hub = pytest.importorskip("huggingface_hub")


class Decoder(nn.Module, hub.PyTorchModelHubMixin, library_name="mine", license="mit"):
    """A decoder as its author publishes it."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Conv2d(4, width, 3, padding=1)
        self.out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(self.out(torch.relu(self.body(latents))))


def test_a_folded_network_is_saved_and_loaded_by_its_own_class(tmp_path: Path) -> None:
    torch.manual_seed(1)
    parent, key = scalefp.modulate(Decoder(6), 64, key_gain=0.3), Key.random(64)
    folded = parent.fold(key)
    folded.save_pretrained(tmp_path)
    card = hub.ModelCard.load(tmp_path / "README.md")
    assert (card.data.library_name, card.data.license) == ("mine", "mit")
    card.text += (
        "\nThis copy of the decoder is marked: its pictures lead back to who received it.\n"
    )
    card.save(tmp_path / "README.md")
    assert {file.name for file in tmp_path.iterdir()} == {
        "README.md", "config.json", "model.safetensors"
    }  # fmt: skip
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert str(key).encode() not in content and b"scalefp" not in content

    loaded = Decoder.from_pretrained(tmp_path, local_files_only=True)
    latents = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(2))
    bits = torch.from_numpy(key.bits)[None].expand(2, -1)
    with torch.no_grad():
        assert torch.equal(loaded(latents), folded(latents))
        torch.testing.assert_close(loaded(latents), parent(latents, bits), atol=1e-5, rtol=1e-5)
