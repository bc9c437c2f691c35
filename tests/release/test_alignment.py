"""Reading moved images, with a decoder made by hand: its logits are correlations with patterns."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scalefp.config import ModelConfig
from scalefp.networks.decoder import Decoder
from scalefp.networks.frames import inverse, orientations, similarity, warp
from scalefp.release import alignment
from scalefp.release.evenness import SURE, above_noise, evenness
from scalefp.release.matched import MatchedFilter
from scalefp.release.matching import Places
from scalefp.release.trials import families

SIZE, N_BITS = 32, 128


@pytest.fixture(scope="module")
def filters():
    """Matched filters that were made before, by the carriers of their decoder."""
    return {}


@pytest.fixture
def read(filters):
    """Reading as a release does, which makes the matched filter of its decoder once."""

    def read(decoder, images):
        same = None if decoder.content is None else decoder.carriers.weight.sum().item()
        filter = filters.setdefault(same, MatchedFilter(decoder))
        return alignment.read(decoder, images, filter)

    return read


@pytest.fixture(scope="module")
def patterns():
    """One smooth random pattern for each bit, [n, 3, 32, 32], orthonormal but for 10."""
    noise = torch.randn(N_BITS, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(noise, size=SIZE, mode="bicubic", align_corners=False)
    return torch.linalg.qr(smooth.flatten(1).T)[0].T.reshape(N_BITS, 3, SIZE, SIZE) * 10


def build(patterns, *, localizer=True):
    """A decoder whose logits are the image's products with the patterns; its localizer always
    answers "as it is"."""
    decoder = Decoder(
        ModelConfig(
            resolution=SIZE,
            n_bits=N_BITS,
            latent_dim=4,
            decoder_base=256,
            decoder_max=16,
            decoder_localizer=localizer,
        )
    ).requires_grad_(False)
    decoder.output.weight.zero_()
    decoder.content.weight.zero_()
    carriers = F.pixel_unshuffle(patterns, 2).flatten(1)
    decoder.carriers.weight.copy_(carriers / decoder.carriers.weight_gain)
    if localizer:
        decoder.localizer.output.weight.zero_()
    return decoder


@pytest.fixture(scope="module")
def decoder(patterns):
    return build(patterns)


def marked(patterns, count=6):
    """Images [count, 3, 32, 32] that carry random bits [count, 16]."""
    bits = torch.randint(0, 2, (count, N_BITS), generator=torch.Generator().manual_seed(1))
    return torch.einsum("bn,nchw->bchw", bits * 2.0 - 1, patterns) * 0.15, bits


def accuracy(logits, bits):
    return ((logits > 0) == (bits > 0)).float().mean().item()


def moved(images, side=1.0, angle=0.0, x=0.0, y=0.0):
    values = (torch.full((len(images),), float(value)) for value in (side, angle, x, y))
    return warp(images, similarity(*values))


def squeezed(images, width, height):
    """The middle of images, this wide and high, as squares."""
    frame = torch.tensor([[width, 0.0, 0.0], [0.0, height, 0.0]])
    return warp(images, frame.expand(len(images), -1, -1))


def test_images_as_they_were_are_read_in_one_pass(read, patterns, decoder, monkeypatch):
    images, bits = marked(patterns)
    direct = decoder(images)[0]
    assert (above_noise(direct) > SURE).all() and accuracy(direct, bits) == 1
    monkeypatch.setattr("scalefp.release.matching.look", None)  # would fail if it were called
    torch.testing.assert_close(read(decoder, images), direct)


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images.flip(3),
        lambda images: images.flip(2),
        lambda images: images.rot90(1, (2, 3)),
        lambda images: images.rot90(3, (2, 3)),
        lambda images: moved(images, side=0.8),
        lambda images: moved(images, side=0.63),
        lambda images: moved(images, angle=12),
        lambda images: moved(images, angle=-27),
        lambda images: moved(images, side=0.91, x=0.05, y=-0.06),
        lambda images: squeezed(images, 1, 9 / 16),
        lambda images: squeezed(images, 3 / 4, 1),
    ],
    ids=[
        "mirrored", "upside down", "left", "right", "crop .8", "crop .63", "12", "-27", "aside",
        "16:9", "3:4",
    ],
)  # fmt: skip
def test_moved_images_are_put_back_and_read(read, patterns, decoder, change):
    images, bits = marked(patterns)
    seen = change(images)
    assert accuracy(decoder(seen)[0], bits) < 0.9
    assert accuracy(read(decoder, seen), bits) > 0.95


@pytest.mark.parametrize("off", [0, 0.12], ids=["exact", "aside"])
def test_a_good_localizer_saves_what_trying_does_not_find(read, patterns, off):
    decoder = build(patterns)
    images, bits = marked(patterns)
    place = dict(side=0.7, angle=20, x=0.2, y=-0.2)
    seen = moved(images, **place)
    assert accuracy(read(decoder, seen), bits) < 0.9
    answer(decoder, **place | {"x": place["x"] + off})
    assert accuracy(read(decoder, seen), bits) > 0.95


def test_each_image_is_read_by_itself(read, patterns, decoder):
    images, _ = marked(patterns, count=4)
    seen = torch.stack([images[0], images[1].flip(2), images[2], torch.zeros_like(images[3])])
    together = read(decoder, seen)
    for i in range(4):
        torch.testing.assert_close(together[i], read(decoder, seen[i : i + 1])[0])


def test_where_nothing_is_found_an_image_is_read_as_it_is(read, decoder):
    noise = torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 0.2
    torch.testing.assert_close(read(decoder, noise), decoder(noise)[0])


def test_without_a_localizer_images_are_read_as_they_are(read, patterns):
    decoder = build(patterns, localizer=False)
    seen = marked(patterns)[0].flip(3)
    torch.testing.assert_close(read(decoder, seen), decoder(seen)[0])


def test_orientations_are_the_eight_symmetries_of_a_square():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    seen = [warp(image, frame[None]).round() for frame in orientations()]
    expected = [t.rot90(k, (2, 3)) for t in (image, image.flip(3)) for k in range(4)]
    assert len({tuple(t.flatten().tolist()) for t in seen}) == 8
    assert {tuple(t.flatten().tolist()) for t in seen} == {
        tuple(t.flatten().tolist()) for t in expected
    }


def test_evenness_is_one_for_equal_sizes_and_two_over_pi_for_noise():
    signs = torch.tensor([[1.0, -1, -1, 1], [2.5, 2.5, -2.5, 2.5]])
    torch.testing.assert_close(evenness(signs), torch.ones(2))
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    assert evenness(noise).item() == pytest.approx(2 / torch.pi, abs=0.01)
    assert evenness(torch.tensor([1.0, 0, 0, 0])).item() == pytest.approx(0.25)
    assert evenness(torch.zeros(4)) == 0


def test_above_noise_is_standardised_for_noise_of_any_length():
    for n in (64, 256):
        noise = torch.randn(20_000, n, generator=torch.Generator().manual_seed(n))
        values = above_noise(noise)
        assert values.mean().item() == pytest.approx(0, abs=0.2)
        assert values.std().item() == pytest.approx(1, abs=0.05)


def test_the_best_of_many_wrong_places_gives_no_unlikely_p_value(read, decoder):
    """Keys are drawn without a look at images, so p-values of unrelated images are uniform."""
    noise = torch.randn(24, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)) * 0.2
    signs = (read(decoder, noise) > 0).numpy() * 2 - 1
    keys = np.random.default_rng(0).integers(0, 2, (500, N_BITS)) * 2 - 1
    matches = (signs @ keys.T + N_BITS) // 2  # [images, keys], Binomial(128, 1/2)
    assert matches.mean() == pytest.approx(64, abs=0.3)
    assert matches.std() == pytest.approx(math.sqrt(32), rel=0.03)


class Correlator(Decoder):
    """A decoder without carriers, whose logits are still the image's products with the patterns."""

    def forward(self, images, frame=None):
        self.passes += len(images)
        if frame is not None:
            images = warp(images, inverse(frame))
        return images.flatten(1) @ self.patterns.flatten(1).T, None


@pytest.fixture
def correlator(patterns):
    decoder = build(patterns)
    decoder.__class__, decoder.content = Correlator, None
    decoder.patterns, decoder.passes = patterns, 0
    return decoder


def answer(decoder, **place):
    """Let the localizer see every image in that place."""
    frame = similarity(*(torch.tensor([float(value)]) for value in place.values()))[0]
    change = (frame - torch.eye(2, 3)).flatten()
    decoder.localizer.output.bias.copy_(change / decoder.localizer.output.bias_gain)


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images.flip(3),
        lambda images: images.rot90(1, (2, 3)),
        lambda images: images.flip(2).rot90(1, (2, 3)),
        lambda images: squeezed(images, 1, 9 / 16),
    ],
    ids=["mirrored", "left", "mirrored and left", "16:9"],
)
def test_without_carriers_what_the_localizer_cannot_tell_is_tried(
    read, patterns, correlator, change
):
    images, bits = marked(patterns)
    seen = change(images)
    assert accuracy(correlator(seen)[0], bits) < 0.9
    assert accuracy(read(correlator, seen), bits) > 0.95


@pytest.mark.parametrize("off", [0, 0.06], ids=["exact", "aside"])
def test_without_carriers_an_image_is_read_where_the_localizer_sees_it(
    read, patterns, correlator, off
):
    images, bits = marked(patterns)
    seen = moved(images, side=0.8, angle=15, x=0.1, y=-0.1)
    assert accuracy(read(correlator, seen), bits) < 0.9
    answer(correlator, side=0.8, angle=15, x=0.1 + off, y=-0.1)
    assert accuracy(read(correlator, seen), bits) > 0.95


def test_without_carriers_an_unrelated_image_costs_few_passes(read, correlator):
    noise = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 0.2
    torch.testing.assert_close(read(correlator, noise), correlator(noise)[0])
    assert correlator.passes <= 4 * 22 + 8  # all places look to this localizer as they were


def test_without_carriers_only_places_that_look_as_they_were_are_read(
    read, patterns, correlator, monkeypatch
):
    """A localizer that knows the upright pictures when it sees them, whole or cut."""
    images, bits = marked(patterns)
    whole, cut = (similarity(torch.tensor([side]), *torch.zeros(3, 1)) for side in (1.0, 0.87))
    known = [(frame, warp(images, frame.expand(len(images), -1, -1))) for frame in (whole, cut)]

    def locate(seen):
        frames = similarity(*(torch.full([len(seen)], value) for value in (0.5, 30.0, 0.2, 0.2)))
        for frame, pictures in known:
            alike = F.cosine_similarity(seen.flatten(1)[:, None], pictures.flatten(1), dim=2)
            frames[alike.amax(dim=1) > 0.95] = frame
        return frames

    monkeypatch.setattr(correlator, "locate", locate)
    turned = known[1][1].rot90(1, (2, 3))  # cut, then turned
    assert accuracy(correlator(turned.rot90(-1, (2, 3)))[0], bits) < 0.9
    assert accuracy(read(correlator, turned), bits) > 0.95
    noise = torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 0.2
    whole_turned = images[0].rot90(1, (1, 2))
    for image, count, turns in ((turned[0], 4, None), (whole_turned, 4, 1), (noise, 3, None)):
        tried, trusted = families(correlator, image)
        assert sum(len(frames) for frames, _ in tried) == count
        # Seen as it was, a turn is trusted; else what is made of the image as it is.
        own = tried[0][0] if turns is None else orientations()[turns][None]
        torch.testing.assert_close(trusted, own, atol=2e-3, rtol=0)


def test_places_left_out_count_as_tried():
    frames = similarity(torch.ones(2), *torch.zeros(3, 2))
    logits = torch.randn(2, N_BITS, generator=torch.Generator().manual_seed(3))
    all_tried, chosen = Places(None, 2 / SIZE), Places(None, 2 / SIZE)
    all_tried.add(frames, logits)
    chosen.add(frames[:1], logits[:1], of=2)
    costs = [places.best(1, apart=0.0)[2].item() for places in (all_tried, chosen)]
    assert costs == pytest.approx([math.log(2)] * 2)
    torch.testing.assert_close(chosen.best(1, apart=0.0)[3], logits[:1])
