"""TAEF2's networks: the names and shapes of its published files, and what is between them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scalefp
from scalefp.errors import UserError
from scalefp.key import Key
from scalefp.pretrained.source import load_network
from scalefp.pretrained.taef2 import BOUND, FACTOR, Bound, Decoder, Encoder, load_taef2

Shapes = dict[str, tuple[int, ...]]
# Of taef2_encoder.pth and taef2_decoder.pth: single convolutions (inputs, outputs, with a bias?)
# by the number they have in the file, and the numbers of blocks, without and with a branch.
ENCODER = {0: (3, 64, True), 2: (64, 64, False), 6: (64, 64, False), 10: (64, 64, False)}
ENCODER |= {14: (64, 32, True)}
ENCODER_BLOCKS = ([1, 3, 4, 5, 7, 8, 9], [11, 12, 13])
DECODER = {1: (32, 64, True), 7: (64, 64, False), 12: (64, 64, False), 17: (64, 64, False)}
DECODER |= {19: (64, 3, True)}
DECODER_BLOCKS = ([8, 9, 10, 13, 14, 15, 18], [3, 4, 5])


def published(
    convolutions: dict[int, tuple[int, int, bool]], blocks: tuple[list[int], list[int]]
) -> Shapes:
    def listed() -> Iterator[tuple[str, tuple[int, ...]]]:
        for number, (inputs, outputs, bias) in convolutions.items():
            yield f"{number}.weight", (outputs, inputs, 3, 3)
            if bias:
                yield f"{number}.bias", (outputs,)
        for number in (*blocks[0], *blocks[1]):
            for layer in (0, 2, 4):
                yield f"{number}.conv.{layer}.weight", (64, 64, 3, 3)
                yield f"{number}.conv.{layer}.bias", (64,)
        for number in blocks[1]:
            yield f"{number}.pool.0.weight", (256, 64, 1, 1)
            yield f"{number}.pool.1.weight", (256,)
            yield f"{number}.pool.1.bias", (256,)
            yield f"{number}.pool.3.weight", (64, 256, 1, 1)

    return dict(listed())


@pytest.mark.parametrize(
    ("kind", "shapes", "weights"),
    [
        (Encoder, published(ENCODER, ENCODER_BLOCKS), 1_338_528),
        (Decoder, published(DECODER, DECODER_BLOCKS), 1_338_499),
    ],
)
def test_files_of_the_published_names_and_shapes_load(
    kind: type[nn.Module], shapes: Shapes, weights: int, tmp_path: Path
) -> None:
    source = torch.Generator().manual_seed(0)
    file = tmp_path / "weights.pth"
    # In half precision, as they are published.
    state = {n: torch.randn(shape, generator=source).half() for n, shape in shapes.items()}
    torch.save(state, file)
    options = {"_target_": f"scalefp.pretrained.taef2.{kind.__name__}", "weights": str(file)}
    network = load_network(options)
    assert sum(parameter.numel() for parameter in network.parameters()) == weights
    for name, value in network.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, state[name].float(), atol=0, rtol=0)
    torch.save(dict(list(state.items())[1:]), file)
    with pytest.raises(UserError, match="missing"):
        load_network(options)


def test_both_files_of_a_folder_are_read(tmp_path: Path) -> None:
    for part, shapes in {
        "encoder": published(ENCODER, ENCODER_BLOCKS),
        "decoder": published(DECODER, DECODER_BLOCKS),
    }.items():
        state = {n: torch.zeros(shape).half() for n, shape in shapes.items()}
        torch.save(state, tmp_path / f"taef2_{part}.pth")
    encoder, decoder = load_taef2(tmp_path)
    assert isinstance(encoder, Encoder) and isinstance(decoder, Decoder)
    assert not decoder(encoder(torch.ones(1, 3, 16, 16))).any()  # of weights that are all 0
    (tmp_path / "taef2_decoder.pth").unlink()
    with pytest.raises(UserError, match=r"taef2_decoder\.pth"):
        load_taef2(tmp_path)


def small() -> tuple[Encoder, Decoder]:
    torch.manual_seed(1)
    return Encoder(8).eval().requires_grad_(False), Decoder(8).eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_pictures_come_back_in_their_size_by_latents_of_an_eighth(size: tuple[int, int]) -> None:
    encoder, decoder = small()
    pictures = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    latents = encoder(pictures)
    assert latents.shape == (2, 32, size[0] // FACTOR, size[1] // FACTOR)
    assert decoder(latents).shape == pictures.shape


def test_a_slice_is_the_same_layers_one_after_another() -> None:
    encoder, decoder = small()
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    for network in (encoder, decoder):
        body, last = network[:-1], network[-1]
        assert list(body.state_dict()) == [
            name for name in network.state_dict() if not name.startswith(f"{len(body)}.")
        ]
        torch.testing.assert_close(last(body(x)), network(x), atol=0, rtol=0)
        x = network(x)


def reached(decoder: Decoder, at: Tensor, latents: Tensor) -> Tensor:
    """Which places [h, w] of latents places [3, H, W] of the picture depend on, by gradient."""
    latents = latents.clone().requires_grad_()
    (decoder(latents)[0] * at).sum().backward()
    assert latents.grad is not None
    return latents.grad[0].abs().sum(0) > 0


def test_every_place_of_the_picture_depends_on_the_whole_of_the_latents() -> None:
    """By the norm: a picture cannot be decoded by tiles and be the same."""
    _, decoder = small()
    corner = torch.zeros(3, 64, 64)
    corner[:, 0, 0] = 1
    latents = torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(3))
    assert reached(decoder, corner, latents).all()


def test_latents_are_bounded_softly() -> None:
    x = torch.tensor([-1e6, -0.01, 0.0, 0.01, 1e6])
    torch.testing.assert_close(
        Bound()(x), torch.tensor([-BOUND, -0.01, 0, 0.01, BOUND]), atol=1e-6, rtol=0
    )


def test_the_decoder_is_modulated_and_folded_into_its_own_names() -> None:
    _, decoder = small()
    parent, key = scalefp.modulate(decoder, 16), Key.random(16)
    latents = torch.randn(2, 32, 2, 3, generator=torch.Generator().manual_seed(4))
    bits = torch.from_numpy(key.bits)[None].expand(2, -1)
    with torch.no_grad():
        under = parent(latents, bits)
        folded = parent.fold(key)
        assert folded.state_dict().keys() == decoder.state_dict().keys()
        torch.testing.assert_close(folded(latents), under, atol=1e-5, rtol=1e-5)
        assert (under - decoder(latents)).abs().max() > 1e-3
