"""The decoder: sizes, what it is blind to by construction, its carriers."""

import pytest
import torch
import torch.nn.functional as F

from scalefp.config import ModelConfig
from scalefp.networks.decoder import Decoder
from scalefp.networks.frames import identity_frame, similarity, warp


def build(resolution=32, **options):
    sizes = {"n_bits": 16, "latent_dim": 6, "decoder_base": 4 * resolution, "decoder_max": 8}
    torch.manual_seed(0)
    return Decoder(ModelConfig(resolution=resolution, **{**sizes, **options}))


def pictures(resolution, batch=3):
    return torch.randn(batch, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))


def checkerboard(resolution):
    """+1 and -1 pixel by pixel: the mean of every aligned 2x2 block is 0."""
    line = torch.arange(resolution)
    return ((line[:, None] + line) % 2 * 2.0 - 1).expand(3, resolution, resolution)


@pytest.mark.parametrize("carriers", [True, False])
@pytest.mark.parametrize("decoder_resolution", [16, 32, 256])
@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256])
def test_one_logit_for_each_bit_and_a_latent(resolution, decoder_resolution, carriers):
    decoder = build(
        resolution, n_bits=11, decoder_resolution=decoder_resolution, decoder_carriers=carriers
    )
    logits, latent = decoder(pictures(resolution, batch=2))
    assert logits.shape == (2, 11)
    assert latent.shape == (2, 6)
    assert logits.isfinite().all() and latent.isfinite().all()


@pytest.mark.parametrize(
    ("resolution", "decoder_resolution"), [(32, 16), (64, 32), (128, 32), (128, 64)]
)
def test_large_images_are_read_below_the_decoder_resolution_only(resolution, decoder_resolution):
    decoder = build(resolution, decoder_resolution=decoder_resolution)
    images = pictures(resolution)
    before = torch.cat(decoder(images), dim=1)
    fine = torch.cat(decoder(images + 0.5 * checkerboard(resolution)), dim=1)
    torch.testing.assert_close(fine, before, rtol=0, atol=1e-4)
    coarse = checkerboard(decoder_resolution).repeat_interleave(
        resolution // decoder_resolution, dim=1
    )
    coarse = coarse.repeat_interleave(resolution // decoder_resolution, dim=2)
    seen = torch.cat(decoder(images + 0.5 * coarse), dim=1)
    assert (seen - before).abs().max() > 0.05


@pytest.mark.parametrize("carriers", [True, False])
def test_images_of_the_decoder_resolution_are_read_to_the_last_pixel(carriers):
    decoder = build(32, decoder_resolution=32, decoder_carriers=carriers)
    images = pictures(32)
    assert (decoder(images + checkerboard(32))[0] - decoder(images)[0]).abs().max() > 0.01


@pytest.mark.parametrize("carriers", [True, False])
def test_reading_an_image_does_not_depend_on_its_batch(carriers):
    decoder = build(decoder_carriers=carriers)
    images = pictures(32, batch=5)
    together = torch.cat(decoder(images), dim=1)
    alone = torch.cat([torch.cat(decoder(image[None]), dim=1) for image in images])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


@pytest.mark.parametrize("carriers", [True, False])
def test_every_parameter_gets_a_gradient(carriers):
    decoder = build(64, decoder_carriers=carriers)
    logits, latent = decoder(pictures(64))
    (logits.square().sum() + latent.square().sum()).backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_carriers_correlate_each_bit_with_one_pattern():
    """With trunk and content prediction silenced, logits are one dot product for each bit."""
    decoder = build(16, n_bits=9)
    assert decoder.content is not None
    with torch.no_grad():
        for silenced in (decoder.output, decoder.content):
            silenced.weight.zero_()
        decoder.carriers.bias.normal_()
    images = pictures(16)
    carriers = decoder.carriers.weight.reshape(9, 12, 8, 8) * decoder.carriers.weight_gain
    patterns = F.pixel_shuffle(carriers, 2)  # [9, 3, 16, 16]
    expected = torch.einsum("bchw,nchw->bn", images, patterns) + decoder.carriers.bias
    torch.testing.assert_close(decoder(images)[0], expected, rtol=1e-4, atol=1e-4)


def test_the_predicted_content_is_taken_off_before_the_carriers_look():
    """A content predictor that is right leaves nothing over: carriers then give their bias."""
    decoder = build(16, n_bits=9)
    assert decoder.content is not None
    with torch.no_grad():
        for silenced in (decoder.output, decoder.content):
            silenced.weight.zero_()
        decoder.content.bias.fill_(0.25)
    flat = torch.full((2, 3, 16, 16), 0.25)
    torch.testing.assert_close(decoder(flat)[0], decoder.carriers.bias.expand(2, -1))
    assert decoder(flat + 0.1)[0].abs().max() > 1e-3


def test_carriers_off_leaves_the_trunk_and_the_latent_as_they_are():
    with_carriers, without = build(decoder_carriers=True), build(decoder_carriers=False)
    assert not [name for name, _ in without.named_parameters() if "carriers" in name]
    own = without.state_dict().keys()
    without.load_state_dict({k: v for k, v in with_carriers.state_dict().items() if k in own})
    (logits, latent), (plain_logits, plain_latent) = (
        decoder(pictures(32)) for decoder in (with_carriers, without)
    )
    assert torch.equal(latent, plain_latent)
    assert not torch.allclose(logits, plain_logits, atol=1e-3)


# Frames.


def test_without_a_frame_and_at_the_identity_it_reads_the_same():
    decoder, images = build(64, decoder_localizer=True), pictures(64)
    for a, b in zip(decoder(images), decoder(images, identity_frame(3)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("carriers", [True, False])
def test_an_image_read_at_its_frame_is_read_as_before_it_was_turned(carriers):
    decoder, images = build(64, decoder_carriers=carriers), pictures(64)
    quarter = similarity(*torch.tensor([[1.0], [90.0], [0.0], [0.0]])).expand(3, -1, -1)
    turned = warp(images, quarter)
    assert (decoder(turned)[0] - decoder(images)[0]).abs().max() > 0.1
    torch.testing.assert_close(
        decoder(turned, quarter)[0], decoder(images)[0], rtol=1e-3, atol=1e-3
    )


def test_carriers_do_not_see_what_the_image_does_not_reach():
    decoder = build(32)
    with torch.no_grad():
        decoder.output.weight.zero_()
        decoder.content.weight.zero_()
    images, half = pictures(32), similarity(*torch.tensor([[0.5], [0.0], [0.0], [0.0]]))
    seen = decoder(warp(images, half.expand(3, -1, -1)), half.expand(3, -1, -1))[0]
    outside = decoder.carriers.weight.unflatten(1, (12, 16, 16))[:, :, 4:12, 4:12]
    with torch.no_grad():
        outside.zero_()
    middle_only = decoder(warp(images, half.expand(3, -1, -1)), half.expand(3, -1, -1))[0]
    assert (seen - middle_only).abs().max() > 0.1
    # Without carriers in the middle nothing is left but what interpolation smears over the edge.
    with torch.no_grad():
        decoder.carriers.weight.unflatten(1, (12, 16, 16))[:, :, 3:13, 3:13] = 0
    none = decoder(warp(images, half.expand(3, -1, -1)), half.expand(3, -1, -1))[0]
    torch.testing.assert_close(none, torch.zeros_like(none), atol=1e-5, rtol=0)


def test_the_localizer_starts_near_the_identity_and_learns():
    decoder, images = build(32, decoder_localizer=True), pictures(32)
    located = decoder.locate(images)
    assert located.shape == (3, 2, 3)
    torch.testing.assert_close(located, identity_frame(3), atol=0.1, rtol=0)
    located.square().sum().backward()
    assert decoder.localizer.stem.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("carriers", [True, False])
def test_a_decoder_is_exported_for_batches_of_any_size(carriers: bool) -> None:
    decoder = Decoder(
        ModelConfig(
            resolution=16, n_bits=8, latent_dim=4, decoder_base=64, decoder_max=8,
            decoder_carriers=carriers,
        )
    ).requires_grad_(False)  # fmt: skip
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        decoder, (torch.zeros(2, 3, 16, 16),), dynamic_shapes={"images": {0: batch}}
    )
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(program.module()(images)[0], decoder(images)[0])
