"""The fitted start: its receiver predicts images, and reads the first marks."""

import torch
import torch.nn.functional as F

from scalefp.artificial.config import MarkConfig
from scalefp.artificial.encoder import Encoder, mark
from scalefp.artificial.start import start_fitted
from scalefp.networks.decoder import Decoder
from scalefp.networks.receiver import halved, predict_pixels

CONFIG = MarkConfig(resolution=32, n_bits=32, encoder_width=8, decoder_base=512, decoder_max=32)


def smooth_images(count, seed):
    """Random images whose neighbours are alike."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=draw)
    return 1.6 * F.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1) - 0.8


def test_a_pixel_is_never_predicted_from_itself():
    weights = predict_pixels(smooth_images(8, 0))
    assert weights.shape == (12, 12, 3, 3)
    assert (weights[range(12), range(12), 1, 1] == 0).all()


def test_the_prediction_is_the_least_squares_one():
    # The error of a least-squares prediction is uncorrelated with all that predicts.
    images = smooth_images(32, 0)
    planes = halved(images)
    error = (planes - F.conv2d(planes, predict_pixels(images), padding=1))[:, :, 1:-1, 1:-1]
    windows = F.unfold(planes, 3).transpose(1, 2).flatten(0, 1).double()
    flat = error.permute(0, 2, 3, 1).flatten(0, 2).double()
    moments = (windows.T @ flat / len(flat)).abs()  # [108, 12]
    others = torch.ones(108, 12, dtype=torch.bool)
    others[[9 * plane + 4 for plane in range(12)], range(12)] = False
    # Not exactly 0: the ridge.
    assert moments[others].max() < 1e-3
    assert error.square().mean() < 0.02 * planes.square().mean()


def test_the_start_reads_marks_on_images_it_never_saw_and_noise_does_not():
    torch.manual_seed(0)
    encoder, decoder = Encoder(CONFIG), Decoder(CONFIG)
    decoder.requires_grad_(False)
    encoder.requires_grad_(False)
    images, draw = smooth_images(32, 1), torch.Generator().manual_seed(3)
    bits = torch.randint(0, 2, (32, 32), generator=draw)

    def accuracy():
        marked = mark(images, encoder(images, bits, psnr=34.0))
        # The carriers alone: the trunk, still random, comes on top of them in training.
        return ((decoder.look(marked, None)[1] > 0) == (bits > 0)).float().mean().item()

    assert 0.4 < accuracy() < 0.6
    start_fitted(encoder, decoder, smooth_images(64, 2), draw)
    assert accuracy() > 0.95


def test_the_start_is_the_draws():
    torch.manual_seed(0)
    pairs = []
    for seed in (5, 5, 6):
        encoder, decoder = Encoder(CONFIG), Decoder(CONFIG)
        start_fitted(encoder, decoder, smooth_images(16, 2), torch.Generator().manual_seed(seed))
        pairs.append((encoder.carriers.weight.detach(), decoder.carriers.weight.detach()))
    assert all(torch.equal(a, b) for a, b in zip(pairs[0], pairs[1], strict=True))
    assert not torch.equal(pairs[0][0], pairs[2][0])
