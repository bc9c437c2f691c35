"""One training step of all networks: what is computed, in the order it happens.

All randomness comes from (seed, process, images seen), so that a run that was stopped goes on as
if it had not been.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from scalefp.config import TrainConfig
from scalefp.data.dataset import ImageSet
from scalefp.training import losses
from scalefp.training.augment import Augmentation
from scalefp.training.distributed import World
from scalefp.training.feed import real_images
from scalefp.training.perturbed import Chance, decode_perturbed, reading_figures
from scalefp.training.precision import Computing, computing_in
from scalefp.training.schedule import learning_rate, step_generator
from scalefp.training.state import TrainingState, ema_update, set_learning_rate
from scalefp.training.tampered import KEYS, disturbed_images

Terms = dict[str, Tensor]  # name -> scalar, unweighted


@lru_cache(maxsize=1)
def training_keys(count: int, n_bits: int, seed: int) -> Tensor:
    """The keys of a training that knows only so many: uint8 [count, n]."""
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (count, n_bits), generator=source, dtype=torch.uint8)


def draw_bits(config: TrainConfig, count: int, source: torch.Generator) -> Tensor:
    """The bits of a key for each of ``count`` images: int64 [count, n]."""
    n_bits = config.model.n_bits
    if config.training_keys is None:
        return torch.randint(0, 2, (count, n_bits), generator=source)
    known = training_keys(config.training_keys, n_bits, config.seed)
    return known[torch.randint(0, len(known), (count,), generator=source)].long()


@dataclass(frozen=True)
class Batch:
    """What one process trains on in a step. Rows are images; rows 2i and 2i + 1 share a latent.

    Without keys the networks are the same, but no bit is active and no latent comes twice.
    """

    real: Tensor  # of the data set [b, 3, R, R]
    z: Tensor  # [b, dz]
    bits: Tensor  # of a key for each image [b, n]
    chance: Chance
    # What the discriminator sees of real and of generated images; None = the images as they are.
    changes: tuple[Augmentation, Augmentation] | None = None

    @classmethod
    def draw(
        cls, config: TrainConfig, data: ImageSet, seen: int, world: World, source: torch.Generator
    ) -> "Batch":
        """The share of one process in the batch that comes after ``seen`` images."""
        batch = config.optimizer.batch
        real = real_images(
            data, config.data, world, source, seed=config.seed, seen=seen, batch=batch
        )
        share = len(real)
        keys_each = 2 if config.fingerprint else 1
        z = torch.randn(share // keys_each, config.model.latent_dim, generator=source)
        z = z.repeat_interleave(keys_each, dim=0)
        bits = draw_bits(config, share, source)
        chance = Chance.draw(share, config.perturb, config.model.resolution, source)
        changes = None
        if config.loss.augment:
            of_real, of_fake = (
                Augmentation.draw(share, config.model.resolution, config.loss.augment, source)
                for _ in range(2)
            )
            changes = of_real, of_fake
        return cls(real, z.to(world.device), bits.to(world.device), chance, changes)

    def of(self, rows: Tensor | slice) -> "Batch":
        """Some of its images."""
        changes = self.changes
        if changes is not None:
            changes = changes[0].of(rows), changes[1].of(rows)
        return Batch(self.real[rows], self.z[rows], self.bits[rows], self.chance.of(rows), changes)

    def shown_real(self) -> Tensor:
        """The real images as the discriminator sees them."""
        return self.real if self.changes is None else self.changes[0](self.real)

    def shown(self, fake: Tensor) -> Tensor:
        """Generated images [b, 3, R, R] as the discriminator sees them."""
        return fake if self.changes is None else self.changes[1](fake)


def split(count: int, parts: int) -> list[Tensor | slice]:
    """Rows of the parts of a batch of ``count``, as many in each.

    Every part takes the same share of each quarter of the batch, and neighbours stay together:
    then the groups whose deviation the discriminator sees and the pairs of one latent are in the
    parts what they are in the whole, and the losses of the parts have the mean that the whole has.
    """
    if parts == 1:
        return [slice(None)]
    quarters = torch.arange(count).view(4, parts, -1)
    return [quarters[:, part].flatten() for part in range(parts)]


def mean_terms(parts: Sequence[Terms]) -> Terms:
    """Mean of each term over the parts of a batch."""
    return {
        name: sum((part[name].detach().float() / len(parts) for part in parts), torch.zeros(()))
        for name in parts[0]
    }


def generate(state: TrainingState, part: Batch, computing: Computing) -> Tensor:
    """The images [b, 3, R, R] of a part's latents and keys."""
    with computing():
        images: Tensor = state.generator(part.z, part.bits, state.progress.n_active)
    return images


def discriminator_gradients(
    config: TrainConfig,
    state: TrainingState,
    parts: Sequence[Batch],
    made: Tensor | None,
    computing: Computing,
) -> Terms:
    """Add the discriminator's gradients from real and generated images, every so often with R1.

    Args:
        parts: of the batch, of one size.
        made: the generated images if they are kept; else they are made part by part.
    """
    loss, found = config.loss, []
    regularized = loss.r1 and is_due(config, state, loss.r1_interval)
    for part in parts:
        with torch.no_grad():
            fake = generate(state, part, computing) if made is None else made.detach()
        real = part.shown_real()
        with computing():
            logits = state.discriminator(torch.cat([real, part.shown(fake)]), sets=2)
        adversarial = losses.discriminator_terms(*logits.chunk(2))
        ((adversarial["real"] + adversarial["fake"]) / len(parts)).backward()
        terms = {f"discriminator_{name}": term for name, term in adversarial.items()}
        if regularized:
            seen = real.requires_grad_(True)
            with computing():
                terms["r1"] = losses.r1_penalty(state.discriminator(seen), seen)
            (terms["r1"] * loss.r1 * loss.r1_interval / len(parts)).backward()
        found.append(terms)
    return mean_terms(found)


def generator_gradients(
    config: TrainConfig,
    state: TrainingState,
    parts: Sequence[Batch],
    made: Tensor | None,
    computing: Computing,
) -> Terms:
    """Add the gradients of generator and decoder; arguments as of the discriminator's."""
    progress, found = state.progress, []
    weights = progress.weights(config)
    for part in parts:
        fake = generate(state, part, computing) if made is None else made
        with computing():
            fake_logits = state.discriminator(part.shown(fake))
        if config.fingerprint:
            terms, figures = reading_terms(config, state, part, fake, fake_logits, computing)
        else:
            terms, figures = {"adversarial": losses.adversarial(fake_logits)}, {}
        (losses.total(terms, weights) / len(parts)).backward()
        found.append(figures | terms)
    return mean_terms(found)


def reading_terms(
    config: TrainConfig,
    state: TrainingState,
    part: Batch,
    fake: Tensor,
    fake_logits: Tensor,
    computing: Computing,
) -> tuple[Terms, Terms]:
    """Loss terms of generated images whose keys are read, and how well they are."""
    progress = state.progress
    probabilities = config.perturb if progress.readable else {}
    decoded = decode_perturbed(
        state.decoder, fake, probabilities, progress.ramp(config), part.chance, computing
    )
    terms = losses.generator_terms(
        fake_logits=fake_logits,
        key_logits=decoded.logits,
        bits=part.bits,
        n_active=progress.n_active,
        recovered=decoded.latents,
        z=part.z,
        images=fake,
        frame=decoded.frame,
        located=decoded.located,
    )
    correct = (decoded.logits > 0) == (part.bits > 0)
    active = {"active_bit_accuracy": correct[:, : progress.n_active].float().mean()}
    return terms, active | reading_figures(decoded.logits, part.bits)


def path_length_gradients(
    config: TrainConfig,
    state: TrainingState,
    parts: Sequence[Batch],
    noise: Sequence[Tensor],
    world: World,
    computing: Computing,
) -> Terms:
    """Add the generator's gradients from how fast its images move with the key's embedding.

    Args:
        noise: standard normal, shaped as the images of each part.
    """
    loss, progress, found = config.loss, state.progress, []
    mean = torch.zeros((), device=world.device)
    for part, directions in zip(parts, noise, strict=True):
        embedding = state.generator.embedding(part.bits[::2], progress.n_active)
        with computing():
            images = state.generator.synthesize(part.z[::2], embedding)
        lengths = losses.path_lengths(images, embedding, directions[::2].to(world.device))
        mean += lengths.detach().mean() / len(parts)
        penalty = (lengths - progress.path_mean).square().mean()
        (penalty * loss.path_length * loss.path_length_interval / len(parts)).backward()
        found.append({"path_length": penalty})
    progress.path_mean += 0.01 * (float(world.average(mean)) - progress.path_mean)
    return mean_terms(found)


def weight_noise_gradients(
    config: TrainConfig,
    state: TrainingState,
    part: Batch,
    draw: torch.Generator,
    computing: Computing,
) -> Terms:
    """Add the gradients of generator and decoder from reading a few disturbed instances.

    Args:
        part: of the batch, whose latents and first keys are taken.
        draw: the seed of the noise is drawn from it.
    """
    loss, progress, device = config.loss, state.progress, part.z.device
    source = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=draw)))
    latents = part.z[::2]
    keys = min(KEYS, len(latents))
    each = len(latents) // keys
    rows = slice(0, keys * each)
    bits = part.bits[:keys]
    images = disturbed_images(
        state.generator,
        latents[rows].unflatten(0, (keys, each)),
        state.generator.embedding(bits, progress.n_active),
        loss.weight_noise_strength * progress.ramp(config),
        source,
    )
    decoded = decode_perturbed(state.decoder, images, {}, 0.0, part.chance.of(rows), computing)
    wanted = bits.repeat_interleave(each, dim=0)
    term = losses.key_bits(decoded.logits, wanted, progress.n_active)
    (term * loss.weight_noise * loss.weight_noise_interval).backward()
    correct = (decoded.logits > 0) == (wanted > 0)
    return mean_terms([{"weight_noise": term, "disturbed_bit_accuracy": correct.float().mean()}])


def is_due(config: TrainConfig, state: TrainingState, interval: int) -> bool:
    """Whether this step is one of those that compute a lazy term."""
    return (state.progress.images // config.optimizer.batch) % interval == 0


def step(
    config: TrainConfig,
    state: TrainingState,
    data: ImageSet,
    world: World,
    precision: torch.dtype,
) -> dict[str, float]:
    """One step of all networks on ``optimizer.batch`` images; moves the curriculum on.

    Returns:
        The unweighted loss terms and how keys are read, averaged over the processes.
    """
    progress, options = state.progress, config.optimizer
    draw = step_generator(config.seed, world.rank, progress.images)
    computing = partial(computing_in, precision, world.device)
    left = config.schedule.total_images - progress.images
    rate = learning_rate(options, left, config.schedule.decay_images)
    set_learning_rate(rate, state.reader_optimizer, state.discriminator_optimizer)
    batch = Batch.draw(config, data, progress.images, world, draw)
    rows = split(len(batch.real), config.run.accumulate)
    parts = [batch.of(each) for each in rows]
    # Of a split batch the images are made twice, to keep the activations of one part at a time.
    made = generate(state, batch, computing) if len(parts) == 1 else None

    state.discriminator.requires_grad_(True)
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    terms = discriminator_gradients(config, state, parts, made, computing)
    world.average_gradients(state.discriminator)
    state.discriminator_optimizer.step()

    state.discriminator.requires_grad_(False)
    state.reader_optimizer.zero_grad(set_to_none=True)
    terms |= generator_gradients(config, state, parts, made, computing)
    if config.loss.path_length and is_due(config, state, config.loss.path_length_interval):
        noise = torch.randn(batch.real.shape, generator=draw)
        of_parts = [noise[each] for each in rows]
        terms |= path_length_gradients(config, state, parts, of_parts, world, computing)
    due = is_due(config, state, config.loss.weight_noise_interval)
    if config.fingerprint and config.loss.weight_noise and progress.readable and due:
        terms |= weight_noise_gradients(config, state, parts[0], draw, computing)
    for module in (state.generator, state.decoder):
        world.average_gradients(module)
    state.reader_optimizer.step()

    for average, network in state.averages():
        ema_update(average, network, options, progress.images + options.batch)
    values = world.average_terms(terms)
    if config.fingerprint:
        progress.note_reading(values)
        difference = losses.difference(values, config.loss.visibility)
        progress.advance(values["active_bit_accuracy"], difference, config)
    return values
