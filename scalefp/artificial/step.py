"""One training step of encoder and decoder: what is computed, in the order it happens.

All randomness comes from (seed, images seen), so that a run that was stopped goes on as if it had
not been.
"""

from functools import partial

import torch

from scalefp import perturb
from scalefp.artificial import losses
from scalefp.artificial.config import MarkTrainConfig
from scalefp.artificial.encoder import mark
from scalefp.artificial.state import MarkState
from scalefp.data.dataset import ImageSet, sample_indices
from scalefp.data.images import to_float
from scalefp.training.distributed import computing_in
from scalefp.training.losses import total
from scalefp.training.schedule import learning_rate, step_generator
from scalefp.training.state import follow
from scalefp.training.step import Chance, reading_frame


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
    progress, options, batch = state.progress, config.optimizer, config.optimizer.batch
    draw = step_generator(config.seed, 0, progress.images)
    left = config.schedule.total_images - progress.images
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(options, left, config.schedule.decay_images)

    images = to_float(data.batch(sample_indices(len(data), config.seed, progress.images, batch)))
    if config.data.flip:
        mirrored = torch.rand(batch, generator=draw) < 0.5
        images[mirrored] = images[mirrored].flip(3)
    bits = torch.randint(0, 2, (batch, config.model.n_bits), generator=draw).to(device)
    moved = torch.rand(batch, generator=draw) < config.transplant
    chance = Chance.draw(batch, draw)
    images = images.to(device)
    cast = partial(computing_in, precision, device)

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

    follow(state.average_encoder, state.encoder, options, progress.images + batch)
    follow(state.average_decoder, state.decoder, options, progress.images + batch)

    values = {name: term.item() for name, term in terms.items()}
    values["bit_accuracy"] = ((logits > 0) == (bits > 0)).float().mean().item()
    progress.advance(values["bit_accuracy"], config)
    return values
