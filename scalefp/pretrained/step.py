"""One training step of an adopted generator's modulation and of the decoder.

All randomness comes from (seed, process, images seen), so that a run that was stopped goes on as
if it had not been.
"""

from functools import partial

import torch
from torch import Tensor

from scalefp.config import TrainConfig
from scalefp.networks.frames import distance
from scalefp.pretrained.adopted import Adopted, draw
from scalefp.pretrained.state import AdoptedState
from scalefp.pretrained.tampered import Reading, add_gradients
from scalefp.training.batch import draw_bits
from scalefp.training.distributed import World
from scalefp.training.losses import (
    consistency_terms,
    difference,
    gradient_difference,
    key_bits,
    over_active,
    total,
)
from scalefp.training.perturbed import Chance, decode_perturbed, reading_figures
from scalefp.training.precision import computing_in
from scalefp.training.schedule import Progress, Scheduled, learning_rate, step_generator
from scalefp.training.state import ema_update


def beside(made: Tensor, originals: Tensor) -> Tensor:
    """Images [b, 3, R, R] in pairs with those they should be like: [2 b, 3, R, R]."""
    return torch.stack([made, originals], dim=1).flatten(0, 1)


def weights_are_changed(config: TrainConfig, progress: Progress) -> bool:
    """Whether instances with changed weights are read in the step after so many images."""
    loss, number = config.loss, progress.images // config.optimizer.batch
    wanted = loss.weight_noise > 0 or loss.weight_step > 0
    return wanted and progress.readable and number % loss.weight_noise_interval == 0


def step(
    config: TrainConfig,
    adopted: Adopted,
    state: AdoptedState,
    world: World,
    precision: torch.dtype,
) -> dict[str, Tensor]:
    """One step on ``optimizer.batch`` images, each with a key of its own; moves the curriculum on.

    Returns:
        The unweighted loss terms and how keys are read, of this process.
    """
    progress, options, keys_each = state.progress, config.optimizer, config.modulation.keys_each
    source = step_generator(config.seed, world.rank, progress.images)
    left = config.schedule.total_images - progress.images
    rate = learning_rate(options, left, config.schedule.decay_images)
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    share = options.batch // world.size
    inputs = draw(adopted.inputs, share // keys_each, source).to(world.device)
    bits = draw_bits(config, share, source).to(world.device)
    scheduled = Scheduled(config.model.n_bits, world.device)
    scheduled.set(progress, config)
    # Inputs may come from anywhere and are drawn on the host, perturbations where they are made.
    seed = int(torch.randint(2**62, (), generator=source))
    there = torch.Generator(world.device).manual_seed(seed)
    chance = Chance.draw(share, config.perturb, config.model.resolution, there)
    computing = partial(computing_in, precision, world.device)

    with computing():
        with torch.no_grad():
            originals = adopted.pictures.of(state.parent.original(inputs))
        made = adopted.pictures.of(state.parent(inputs, bits, n_active=progress.n_active))
    originals = originals.repeat_interleave(keys_each, dim=0)
    probabilities = config.perturb if progress.readable else {}
    decoded = decode_perturbed(
        state.decoder, made, probabilities, progress.ramp(config), chance, computing
    )
    terms = {
        "bits": key_bits(decoded.logits, bits, scheduled.active),
        **consistency_terms(beside(made, originals)),
    }
    if config.loss.gradients:
        terms["gradients"] = gradient_difference(made, originals)
    if adopted.perceptual is not None:
        terms["lpips"] = adopted.perceptual(made, originals).mean()
    if decoded.located is not None:
        terms["geometry"] = distance(decoded.located, decoded.frame).mean()
    weights = scheduled.weights(config)
    state.optimizer.zero_grad(set_to_none=True)
    total(terms, {name: weights[name] for name in terms}).backward()
    if weights_are_changed(config, progress):
        reading = Reading(adopted, state, chance, computing)
        terms |= add_gradients(config, reading, inputs, bits, there)
    world.average_gradients(state.parent.keyed)
    world.average_gradients(state.decoder)
    state.optimizer.step()
    for average, network in state.averages():
        ema_update(average, network, options, progress.images + options.batch)

    correct = (decoded.logits > 0) == (bits > 0)
    terms |= {"active_bit_accuracy": over_active(correct, scheduled.active)}
    terms |= reading_figures(decoded.logits, bits)
    values = world.average_terms(terms)
    progress.note_reading(values)
    progress.advance(
        values["active_bit_accuracy"], difference(values, config.loss.visibility), config
    )
    return terms
