"""One training step of all networks: what is computed, in the order it happens.

All randomness comes from (seed, process, images seen), so that a run that was stopped goes on as
if it had not been.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from scalefp import losses, perturb
from scalefp.config import TrainConfig
from scalefp.data import ImageSet, sample_indices
from scalefp.distributed import World
from scalefp.geometry import compose, orientations, similarity
from scalefp.images import to_float
from scalefp.schedule import learning_rate, step_generator
from scalefp.training_state import TrainingState

FRAME_ERROR = 0.015  # of the frames at which training reads, in half images: half a decoder pixel


def reading_frame(
    frame: Tensor, located: Tensor | None, guessed: float, draw: torch.Generator
) -> Tensor | None:
    """The frame [b, 2, 3] at which the decoder reads in a training step.

    Where the image was moved: the true frame, a little off, since in use it is found by trial; or
    with probability ``guessed`` the localizer's estimate. None if there is no localizer, so that
    the decoder learns to read images as they are.
    """
    if located is None:
        return None
    off = torch.randn(frame.shape, generator=draw) * FRAME_ERROR
    guess = torch.rand(len(frame), generator=draw) < guessed
    still = torch.eye(2, 3)
    moved = (frame.cpu() != still).any(dim=2).any(dim=1)
    near = torch.where(guess[:, None, None], located.detach().float().cpu(), frame.cpu() + off)
    return torch.where(moved[:, None, None], near, still).to(frame.device)


def wrong_frames(frame: Tensor, draw: torch.Generator) -> Tensor:
    """Frames [b, 2, 3] that a search may try in vain: half of them near the true ones, half far."""

    def some(values: float) -> Tensor:
        return (2 * torch.rand(len(frame), generator=draw) - 1) * values

    near = compose(frame.cpu(), similarity(1 + some(0.15), some(10), some(0.15), some(0.15)))
    turned = orientations()[torch.randint(8, (len(frame),), generator=draw)]
    far = compose(similarity(0.75 + some(0.35), some(30), some(0.3), some(0.3)), turned)
    here = torch.rand(len(frame), generator=draw) < 0.5
    return torch.where(here[:, None, None], near, far).to(frame.device)


def step(
    config: TrainConfig,
    state: TrainingState,
    data: ImageSet,
    world: World,
    precision: torch.dtype,
) -> dict[str, float]:
    """One step of all networks on ``optimizer.batch`` images; moves the curriculum on.

    Returns:
        The unweighted loss terms and the bit accuracy, averaged over the processes.
    """
    generator, decoder, discriminator = state.generator, state.decoder, state.discriminator
    progress = state.progress
    options, loss, device = config.optimizer, config.loss, world.device
    share = options.batch // world.size  # images of this process
    draw = step_generator(config.seed, world.rank, progress.images)
    number = progress.images // options.batch
    terms: dict[str, Tensor] = {}
    for optimizer in (state.reader_optimizer, state.discriminator_optimizer):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, progress.images)

    def cast() -> Any:
        mixed = precision != torch.float32
        return torch.autocast(device.type, precision) if mixed else nullcontext()

    # Data, latents and keys: each latent under two keys, pairs side by side. Without keys the
    # networks are the same, but no bit is active and no latent comes twice.
    indices = sample_indices(len(data), config.seed, progress.images, options.batch)
    real = to_float(data.batch(indices[world.rank :: world.size])).to(device)
    if config.data.flip:
        mirrored = torch.rand(share, generator=draw) < 0.5
        real[mirrored] = real[mirrored].flip(3)
    keys_each = 2 if config.fingerprint else 1
    z = torch.randn(share // keys_each, config.model.latent_dim, generator=draw)
    z = z.repeat_interleave(keys_each, dim=0).to(device)
    bits = torch.randint(0, 2, (share, config.model.n_bits), generator=draw).to(device)
    with cast():
        fake = generator(z, bits, progress.n_active)

    # Discriminator.
    discriminator.requires_grad_(True)
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    with cast():
        parts = losses.discriminator_terms(discriminator(real), discriminator(fake.detach()))
    (parts["real"] + parts["fake"]).backward()
    terms["discriminator_real"], terms["discriminator_fake"] = parts["real"], parts["fake"]
    if loss.r1 and number % loss.r1_interval == 0:
        real.requires_grad_(True)
        with cast():
            penalty = losses.r1_penalty(discriminator(real), real)
        (penalty * loss.r1 * loss.r1_interval).backward()
        terms["r1"] = penalty
    world.average_gradients(discriminator)
    state.discriminator_optimizer.step()

    # Generator and decoder.
    discriminator.requires_grad_(False)
    state.reader_optimizer.zero_grad(set_to_none=True)
    with cast():
        fake_logits = discriminator(fake)
    if config.fingerprint:
        seen, frame = perturb.perturb_images(
            fake, config.perturb if progress.readable else {}, draw, progress.ramp(config)
        )
        with cast():
            located = decoder.locate(seen) if decoder.localizer is not None else None
            key_logits, recovered = decoder(
                seen, reading_frame(frame, located, config.schedule.guessed, draw)
            )
            astray = None
            if progress.astray(config):  # for the decoder alone: no matter of the generator's
                astray, _ = decoder(seen[::4].detach(), wrong_frames(frame[::4], draw))
        generator_terms = losses.generator_terms(
            fake_logits=fake_logits,
            key_logits=key_logits,
            bits=bits,
            n_active=progress.n_active,
            recovered=recovered,
            z=z,
            images=fake,
            frame=frame,
            located=located,
            astray=astray,
        )
        correct = (key_logits > 0) == (bits > 0)
        terms["bit_accuracy"] = correct[:, : progress.n_active].float().mean()
    else:
        generator_terms = {"adversarial": losses.adversarial(fake_logits)}
    losses.total(generator_terms, progress.weights(config)).backward()
    terms |= generator_terms
    if loss.path_length and number % loss.path_length_interval == 0:
        embedding = generator.embedding(bits[::2], progress.n_active)
        with cast():
            images = generator.synthesize(z[::2], embedding)
        noise = torch.randn(images.shape, generator=draw).to(device)
        lengths = losses.path_lengths(images, embedding, noise)
        progress.path_mean += 0.01 * (
            float(world.average(lengths.detach().mean())) - progress.path_mean
        )
        penalty = (lengths - progress.path_mean).square().mean()
        (penalty * loss.path_length * loss.path_length_interval).backward()
        terms["path_length"] = penalty
    for module in (generator, decoder):
        world.average_gradients(module)
    state.reader_optimizer.step()

    # Averaged weights; early on the average is kept short.
    half_life = min(options.ema_images, 0.05 * (progress.images + options.batch))
    weight = 1 - 0.5 ** (options.batch / half_life)
    with torch.no_grad():
        for average, current in (
            (state.average_generator, generator),
            (state.average_decoder, decoder),
        ):
            weights = [parameter.detach() for parameter in current.parameters()]
            torch._foreach_lerp_(list[Tensor](average.parameters()), weights, weight)

    means = world.average(torch.stack([term.detach().float() for term in terms.values()]))
    values = dict(zip(terms, means.tolist(), strict=True))
    if config.fingerprint:
        progress.advance(values["bit_accuracy"], values["consistency"], config)
    return values
