"""Loss terms against closed forms, and that descending them goes the right way."""

import math

import pytest
import torch
import torch.nn.functional as F

from scalefp.networks.frames import identity_frame
from scalefp.perturb.entry import pass_gradients
from scalefp.training.losses import (
    change_weights,
    consistency_terms,
    difference,
    discriminator_terms,
    generator_terms,
    gradient_difference,
    key_bits,
    out_of_range,
    path_lengths,
    r1_penalty,
    total,
    window_means,
)

LN2 = math.log(2)
SURE = 40.0  # a logit beyond doubt: softplus(-40) < 1e-17
BITS = torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0]])


def signs(bits):
    return bits.float() * 2 - 1


def terms_of(logit=0.0, key_logits=None, bits=BITS, **changes):
    """Terms of two images of one latent; perfect but for what is given."""
    arguments = {
        "fake_logits": torch.full((2,), logit),
        "key_logits": SURE * signs(bits) if key_logits is None else key_logits,
        "bits": bits,
        "recovered": torch.ones(2, 3),
        "z": torch.ones(2, 3),
        "images": torch.zeros(2, 3, 4, 4),
    }
    return generator_terms(**{**arguments, **changes})


# Adversarial.


@pytest.mark.parametrize(
    ("real", "fake", "expected"),
    [
        (0.0, 0.0, {"real": LN2, "fake": LN2}),
        (SURE, -SURE, {"real": 0.0, "fake": 0.0}),
        (-SURE, SURE, {"real": SURE, "fake": SURE}),
    ],
)
def test_discriminator_loss_is_logistic(real, fake, expected):
    terms = discriminator_terms(torch.full((5,), real), torch.full((3,), fake))
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, abs=1e-6)


def test_discriminator_loss_is_the_mean_over_the_batch():
    logits = torch.randn(6, generator=torch.Generator().manual_seed(0))
    terms = discriminator_terms(logits, 2 * logits)
    probability = torch.sigmoid(logits)
    torch.testing.assert_close(terms["real"], -probability.log().mean())
    torch.testing.assert_close(terms["fake"], -(1 - torch.sigmoid(2 * logits)).log().mean())


@pytest.mark.parametrize(("logit", "expected"), [(0.0, LN2), (SURE, 0.0), (-SURE, SURE)])
def test_generator_wants_to_be_taken_for_real(logit, expected):
    assert terms_of(logit=logit)["adversarial"].item() == pytest.approx(expected, abs=1e-6)


def test_terms_of_a_perfect_generator_and_decoder_vanish():
    terms = terms_of(logit=SURE)
    assert set(terms) == {"adversarial", "range", "latent", "bits", "consistency", "visible"}
    for name, term in terms.items():
        assert term.item() == pytest.approx(0, abs=1e-6), name


def test_the_geometry_term_is_the_distance_of_the_frames():
    still = identity_frame(2)
    aside = still + torch.tensor([[0.0, 0.0, 0.3], [0.0, 0.0, 0.4]])
    terms = terms_of(frame=aside, located=torch.stack([still[0], aside[1]]))
    assert terms["geometry"].item() == pytest.approx(0.25, abs=1e-3)
    assert "geometry" not in terms_of(frame=aside)  # no localizer, nothing to compare


def test_half_precision_inputs_give_single_precision_losses():
    half = terms_of(fake_logits=torch.zeros(2, dtype=torch.bfloat16))
    assert all(term.dtype == torch.float32 for term in half.values())


# Key bits, latent, consistency.


def test_key_bits_closed_forms():
    assert key_bits(torch.zeros(2, 4), BITS).item() == pytest.approx(LN2)
    assert key_bits(SURE * signs(BITS), BITS).item() == pytest.approx(0, abs=1e-6)
    assert key_bits(-SURE * signs(BITS), BITS).item() == pytest.approx(SURE)
    one_wrong = SURE * signs(BITS)
    one_wrong[0, 0] *= -1
    assert key_bits(one_wrong, BITS).item() == pytest.approx(SURE / 8)


def test_inactive_bits_do_not_count_even_if_they_are_nan():
    logits = SURE * signs(BITS)
    logits[:, 2:] = math.nan
    active = torch.tensor([1.0, 1.0, 0.0, 0.0])
    assert key_bits(logits, BITS, active).item() == pytest.approx(0, abs=1e-6)
    assert terms_of(key_logits=logits, active=active)["bits"].item() == pytest.approx(0, abs=1e-6)


def test_latent_term_is_the_mean_squared_error():
    terms = terms_of(recovered=torch.tensor([[1.0, 1, 3], [0, 1, 1]]))
    assert terms["latent"].item() == pytest.approx((4 + 1) / 6)


def test_consistency_compares_the_two_images_of_each_latent_and_no_others():
    def plain(images):
        return consistency_terms(images)["consistency"].item()

    images = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    pairs = images.repeat_interleave(2, dim=0)  # equal pairs, all latents different
    assert plain(pairs) == 0
    pairs[1] += 0.5
    assert plain(pairs) == pytest.approx(0.25 / 6)
    assert plain(images.repeat(2, 1, 1, 1)) > 1  # the same images, not side by side


def test_window_means_are_those_of_pooling():
    x = torch.randn(2, 20, 14, generator=torch.Generator().manual_seed(0))
    expected = F.avg_pool2d(x, 7, 1, 3, count_include_pad=False)
    torch.testing.assert_close(window_means(x), expected)


def test_the_gradients_of_a_ramp_are_its_slope_and_twice_that_at_half_the_size():
    slope = 0.01
    ramp = slope * torch.arange(32.0).expand(2, 3, 32, 32)
    flat = torch.full_like(ramp, 0.7)
    # Across; nothing changes downwards. Halved twice, neighbours differ by 2 and 4 slopes.
    expected = slope**2 * (1 + 4 + 16) / 6
    for ramped in (ramp, ramp.mT):
        found = gradient_difference(ramped + flat, flat)
        torch.testing.assert_close(found, torch.tensor(expected))
    assert gradient_difference(ramp + 0.3, ramp) < 1e-10  # a change of brightness


def half_flat(size=32, contrast=0.9):
    """A picture [1, 3, size, size], flat on the left and a chessboard on the right."""
    board = (torch.arange(size)[:, None] + torch.arange(size)).remainder(2) * 2.0 - 1
    board[:, : size // 2] = 0
    return contrast * board.expand(1, 3, size, size).contiguous()


def test_a_change_shows_most_where_a_picture_is_flat():
    weights = change_weights(half_flat()[:, 0])
    assert weights.shape == (1, 32, 32)
    assert weights.mean().item() == pytest.approx(1, abs=1e-5)
    flat, busy = weights[..., :12], weights[..., 20:]  # away from the seam, up to the borders
    torch.testing.assert_close(flat, flat.mean().expand_as(flat))
    # A chessboard of +-c has the deviation c, at the borders as well as inside.
    ratio = (flat.mean() / busy).flatten()
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1 + 0.9 / 0.1), rtol=0.02, atol=0)


def test_visible_changes_weigh_more_than_hidden_ones_of_the_same_size():
    picture = half_flat()
    sides = []
    for columns in (slice(0, 12), slice(20, 32)):
        other = picture.clone()
        other[..., columns] += 0.02
        terms = consistency_terms(torch.cat([picture, other]))
        assert terms["consistency"].item() == pytest.approx(0.02**2 * 12 / 32, rel=1e-3)
        sides.append(terms["visible"].item())
    assert sides[0] / sides[1] == pytest.approx(10, rel=0.05)


def test_on_a_flat_picture_both_measures_agree():
    images = torch.zeros(2, 3, 16, 16)
    images[1] += 0.3
    terms = consistency_terms(images)
    assert terms["visible"].item() == pytest.approx(terms["consistency"].item()) == 0.09


def test_the_difference_mixes_both_measures():
    terms = {"consistency": 0.02, "visible": 0.06}
    mixed = [difference(terms, share) for share in (0.0, 0.25, 1.0)]
    assert mixed == pytest.approx([0.02, 0.03, 0.06])


def test_texture_is_no_way_out_of_the_visible_term():
    """The weights carry no gradient: a picture is not made busy to hide its fingerprint."""
    images = torch.cat([half_flat(), half_flat()]).requires_grad_()
    (gradient,) = torch.autograd.grad(consistency_terms(images)["visible"], images)
    assert not gradient.any()


# Range.


def test_only_what_is_outside_of_black_and_white_counts_by_the_square_of_the_excess():
    images = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
    assert out_of_range(images).item() == 0
    images[0, 0, 0, 0], images[0, 2, 3, 3] = -3.0, 1.5
    assert out_of_range(images).item() == pytest.approx((2**2 + 0.5**2) / 48)
    assert terms_of(images=images.repeat(2, 1, 1, 1))["range"].item() == pytest.approx(4.25 / 48)


@pytest.mark.parametrize(("weight", "settled"), [(10.0, 0.02), (20.0, 0.01)])
def test_pixels_that_a_reader_pushes_out_come_back_to_where_both_pull_alike(weight, settled):
    """A reader that likes white: its gradient passes through the clipping wherever a pixel is."""
    push, start = 0.4, torch.tensor([50.0, 2.0, 1.0, 0.5])
    end = {}
    for used in (0.0, weight):
        images = start.expand(1, 3, 1, 4).clone().requires_grad_()
        for _ in range(200):
            white = pass_gradients(images, images.detach().clamp(-1, 1)).mean()
            terms = {"white": -white, "range": out_of_range(images)}
            (gradient,) = torch.autograd.grad(total(terms, {"white": push, "range": used}), images)
            images = (images - 0.5 * gradient).detach().requires_grad_()
        end[used] = images.detach()
    assert (end[0.0] > start + 3).all()  # without end
    # push = 2 weight excess: both gradients are those of a mean over the pixels.
    torch.testing.assert_close(end[weight], torch.full_like(end[weight], 1 + settled))


# Regularization.


def test_r1_of_a_linear_discriminator_is_half_its_squared_norm():
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, 4, generator=draw, requires_grad=True)
    real = torch.randn(5, 3, 4, 4, generator=draw, requires_grad=True)
    penalty = r1_penalty((real * weight).sum(dim=(1, 2, 3)), real)
    torch.testing.assert_close(penalty, weight.square().sum() / 2)
    (gradient,) = torch.autograd.grad(penalty, weight)  # it must train the discriminator
    torch.testing.assert_close(gradient, weight)


def test_r1_is_the_mean_over_images_of_different_slopes():
    slopes = torch.tensor([1.0, 2, 3])
    real = torch.randn(3, 1, 2, 2, requires_grad=True)
    penalty = r1_penalty(slopes * real.sum(dim=(1, 2, 3)), real)
    assert penalty.item() == pytest.approx((4 * (1 + 4 + 9) / 3) / 2)


def test_path_length_of_a_linear_generator():
    draw = torch.Generator().manual_seed(0)
    jacobian = torch.randn(3 * 4 * 4, 7, generator=draw, requires_grad=True)
    embedding = torch.randn(5, 7, generator=draw, requires_grad=True)
    images = (embedding @ jacobian.T).reshape(5, 3, 4, 4)
    noise = torch.randn(images.shape, generator=draw)
    lengths = path_lengths(images, embedding, noise)
    expected = (noise.reshape(5, -1) / 4 @ jacobian).norm(dim=1)  # |J^T y| / sqrt(H W)
    torch.testing.assert_close(lengths, expected)
    (gradient,) = torch.autograd.grad(lengths.sum(), jacobian)  # it must train the generator
    assert gradient.abs().max() > 0


def test_path_length_does_not_depend_on_resolution_for_equally_fast_pixels():
    lengths = []
    for size in (8, 64):
        embedding = torch.ones(4, 1, requires_grad=True)
        images = embedding[:, :, None, None].expand(-1, 3, size, size) * 1.0
        draw = torch.Generator().manual_seed(0)
        noise = torch.randn(4000, *images.shape[1:], generator=draw) if size == 8 else None
        if noise is None:  # E|sum of noise| / size is the same at any size: sqrt(3) sqrt(2 / pi)
            noise = torch.randn(400, *images.shape[1:], generator=draw)
        embedding = torch.ones(len(noise), 1, requires_grad=True)
        images = embedding[:, :, None, None].expand(-1, 3, size, size) * 1.0
        lengths.append(path_lengths(images, embedding, noise).mean().item())
    assert lengths == pytest.approx([math.sqrt(6 / math.pi)] * 2, rel=0.1)


# Total.


def test_total_is_the_weighted_sum():
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(3.0), "unused": torch.tensor(5.0)}
    assert total(terms, {"a": 1.0, "b": 0.5}).item() == 3.5


def test_weight_zero_leaves_a_term_out_even_if_it_is_nan():
    x = torch.tensor(2.0, requires_grad=True)
    terms = {"good": x.square(), "bad": x * math.nan}
    loss = total(terms, {"good": 1.0, "bad": 0.0})
    loss.backward()
    assert loss.item() == 4
    assert x.grad is not None and x.grad.item() == 4
    assert math.isnan(total(terms, {"good": 1.0, "bad": 1e-9}).item())


def test_a_weight_for_a_term_that_does_not_exist_is_an_error():
    with pytest.raises(KeyError):
        total({"a": torch.tensor(1.0)}, {"typo": 1.0})


# Descent.


def test_descending_moves_every_quantity_the_right_way():
    fake_logits = torch.zeros(2, requires_grad=True)
    key_logits = torch.zeros(2, 4, requires_grad=True)
    recovered = torch.tensor([[2.0, 0.0, 1.0]] * 2, requires_grad=True)
    images = torch.stack([torch.ones(3, 2, 2), -torch.ones(3, 2, 2)]).requires_grad_()
    leaves = {
        "fake_logits": fake_logits, "key_logits": key_logits,
        "recovered": recovered, "images": images,
    }  # fmt: skip
    weights = {"adversarial": 1.0, "latent": 1.0, "bits": 1.0, "consistency": 1.0}
    loss = total(terms_of(**leaves), weights)
    gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    assert (gradients["fake_logits"] < 0).all()  # more real
    assert torch.equal(-gradients["key_logits"].sign(), signs(BITS))  # towards the key
    assert torch.equal(-gradients["recovered"].sign(), (torch.ones(2, 3) - recovered).sign())
    assert (gradients["images"][0] > 0).all() and (gradients["images"][1] < 0).all()  # together
    stepped = {name: leaf.detach() - 0.1 * gradients[name] for name, leaf in leaves.items()}
    assert total(terms_of(**stepped), weights) < loss


def test_descending_the_discriminator_terms_separates_real_from_fake():
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    sum(discriminator_terms(real, fake).values()).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()


def test_key_bits_gradient_is_the_error_of_the_probability():
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(key_bits(logits, BITS), logits)
    torch.testing.assert_close(gradient, (torch.sigmoid(logits) - BITS) / 8)
    assert F.binary_cross_entropy_with_logits(logits, BITS.float()) > 0
