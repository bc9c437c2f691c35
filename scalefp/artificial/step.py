"""One training step of encoder and decoder: what is computed, in the order it happens.

All randomness comes from (seed, process, images seen), so that a run that was stopped goes on as if
it had not been.
"""

from functools import partial

import torch
from torch import Tensor

from scalefp.artificial import losses
from scalefp.artificial.config import MarkTrainConfig
from scalefp.artificial.encoder import mark
from scalefp.artificial.state import MarkState
from scalefp.training.distributed import World
from scalefp.training.feed import Feed
from scalefp.training.losses import total
from scalefp.training.perturbed import Chance, decode_perturbed, reading_figures
from scalefp.training.precision import computing_in
from scalefp.training.schedule import learning_rate, step_generator
from scalefp.training.state import ema_update, set_learning_rate


def step(
    config: MarkTrainConfig,
    state: MarkState,
    feed: Feed,
    world: World,
    precision: torch.dtype,
) -> dict[str, Tensor]:
    """One step on ``optimizer.batch`` images, each with a key of its own.

    Returns:
        The unweighted loss terms and how keys are read, of this process.
    """
    progress, options, batch = state.progress, config.optimizer, config.optimizer.batch
    draw = step_generator(config.seed, world.rank, progress.images, world.device)
    left = config.schedule.total_images - progress.images
    rate = learning_rate(options, left, config.schedule.decay_images)
    set_learning_rate(rate, state.optimizer)

    feed.load(progress.images)
    images = feed.images(draw)
    share = len(images)
    shape, device = (share, config.model.n_bits), world.device
    bits = torch.randint(0, 2, shape, generator=draw, device=device)
    moved = torch.rand(share, generator=draw, device=device) < config.transplant
    chance = Chance.draw(share, config.perturb, config.model.resolution, draw)
    computing = partial(computing_in, precision, world.device)

    with computing():
        residual = state.encoder(images, bits, psnr=progress.strength(config))
    under = torch.where(moved[:, None, None, None], images.roll(1, 0), images)
    marked = mark(under, residual)
    probabilities = {} if progress.readable_at is None else config.perturb
    severity = config.severity * progress.ramp(config)
    decoded = decode_perturbed(state.decoder, marked, probabilities, severity, chance, computing)
    terms = losses.terms(
        logits=decoded.logits,
        bits=bits,
        images=under,
        marked=marked,
        frame=decoded.frame,
        located=decoded.located,
    )
    state.optimizer.zero_grad(set_to_none=True)
    total(terms, progress.weights(config)).backward()
    for network in (state.encoder, state.decoder):
        world.average_gradients(network)
    state.optimizer.step()

    ema_update(state.average_encoder, state.encoder, options, progress.images + batch)
    ema_update(state.average_decoder, state.decoder, options, progress.images + batch)

    terms |= reading_figures(decoded.logits, bits)
    values = world.average_terms(terms)
    progress.note_reading(values)
    progress.advance(values["bit_accuracy"], config)
    return terms
