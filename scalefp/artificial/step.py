"""One training step of encoder and decoder: what is computed, in the order it happens.

All randomness comes from (seed, images seen), so that a run that was stopped goes on as if it had
not been.
"""

from contextlib import nullcontext

import torch

from scalefp import perturb
from scalefp.artificial import losses
from scalefp.artificial.config import MarkTrainConfig
from scalefp.artificial.encoder import mark
from scalefp.artificial.state import MarkState
from scalefp.data import ImageSet, sample_indices
from scalefp.images import to_float
from scalefp.losses import total
from scalefp.schedule import step_generator
from scalefp.step import Chance, reading_frame


def learning_rate(config: MarkTrainConfig, images: int) -> float:
    """The configured rate, falling linearly to 0 over the last `schedule.decay_images`."""
    left = config.schedule.total_images - images
    return config.optimizer.learning_rate * min(1.0, left / max(1, config.schedule.decay_images))


def step(
    config: MarkTrainConfig,
    state: MarkState,
    data: ImageSet,
    device: torch.device,
    precision: torch.dtype,
) -> dict[str, float]:
    """One step on ``optimizer.batch`` images, each with a key of its own.

    Returns:
        The unweighted loss terms and the bit accuracy.
    """
    progress, batch = state.progress, config.optimizer.batch
    draw = step_generator(config.seed, 0, progress.images)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, progress.images)

    images = to_float(data.batch(sample_indices(len(data), config.seed, progress.images, batch)))
    if config.data.flip:
        mirrored = torch.rand(batch, generator=draw) < 0.5
        images[mirrored] = images[mirrored].flip(3)
    bits = torch.randint(0, 2, (batch, config.model.n_bits), generator=draw).to(device)
    moved = torch.rand(batch, generator=draw) < config.transplant
    chance = Chance.draw(batch, draw)
    images = images.to(device)

    def cast() -> torch.autocast | nullcontext[None]:
        return (
            torch.autocast(device.type, precision) if precision != torch.float32 else nullcontext()
        )

    with cast():
        residual = state.encoder(images, bits, psnr=progress.psnr(config))
    under = torch.where(moved.to(device)[:, None, None, None], images.roll(1, 0), images)
    marked = mark(under, residual)
    seen, frame = perturb.perturb_images(
        marked,
        config.perturb if progress.readable_at >= 0 else {},
        chance.seeds.tolist(),
        config.severity * progress.ramp(config),
    )
    with cast():
        located = state.decoder.locate(seen) if state.decoder.localizer is not None else None
        logits, _ = state.decoder(seen, reading_frame(frame, located, 0.0, chance))
    terms = losses.terms(
        logits=logits, bits=bits, images=under, marked=marked, frame=frame, located=located
    )
    state.optimizer.zero_grad(set_to_none=True)
    total(terms, progress.weights(config)).backward()
    state.optimizer.step()

    # Averaged weights; early on the average is kept short.
    half_life = min(config.optimizer.ema_images, 0.05 * (progress.images + batch))
    state.average(1 - 0.5 ** (batch / half_life))

    values = {name: term.item() for name, term in terms.items()}
    values["bit_accuracy"] = ((logits > 0) == (bits > 0)).float().mean().item()
    progress.advance(values["bit_accuracy"], config)
    return values
