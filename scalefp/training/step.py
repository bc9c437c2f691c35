"""One training step of all networks: what is computed, in the order it happens.

All randomness comes from (seed, process, images seen), so that a run that was stopped goes on as
if it had not been.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from scalefp import perturb
from scalefp.config import TrainConfig
from scalefp.data.dataset import ImageSet, sample_indices
from scalefp.data.images import to_float
from scalefp.networks.frames import compose, orientations, similarity
from scalefp.training import losses
from scalefp.training.distributed import World, computing_in
from scalefp.training.schedule import learning_rate, step_generator
from scalefp.training.state import TrainingState, follow

FRAME_ERROR = 0.015  # of the frames at which training reads, in half images: half a decoder pixel


@dataclass(frozen=True)
class Chance:
    """Random numbers of one step beside latents and keys, drawn for the whole batch at once, so
    that they are an image's own however the batch is split. Rows are images."""

    seeds: Tensor  # of what perturbs the image, [b]
    off: Tensor  # errors of the frames at which training reads [b, 2, 3]
    guess: Tensor  # uniform [b]; below schedule.guessed the localizer's estimate is taken
    nudge: Tensor  # changes of frames that lead a little astray [b, 2, 3]
    far: Tensor  # frames that are elsewhere [b, 2, 3]
    here: Tensor  # which of the two a wrong frame is [b]

    @classmethod
    def draw(cls, count: int, source: torch.Generator) -> "Chance":
        """The numbers for ``count`` images."""

        def some(values: float) -> Tensor:
            return (2 * torch.rand(count, generator=source) - 1) * values

        turned = orientations()[torch.randint(8, (count,), generator=source)]
        return cls(
            seeds=torch.randint(2**62, (count,), generator=source),
            off=torch.randn(count, 2, 3, generator=source) * FRAME_ERROR,
            guess=torch.rand(count, generator=source),
            nudge=similarity(1 + some(0.15), some(10), some(0.15), some(0.15)),
            far=compose(similarity(0.75 + some(0.35), some(30), some(0.3), some(0.3)), turned),
            here=torch.rand(count, generator=source) < 0.5,
        )

    def of(self, rows: Tensor | slice) -> "Chance":
        """Those of some images."""
        return Chance(**{name: values[rows] for name, values in vars(self).items()})


def reading_frame(
    frame: Tensor, located: Tensor | None, guessed: float, chance: Chance
) -> Tensor | None:
    """The frame [b, 2, 3] at which the decoder reads in a training step.

    Where the image was moved: the true frame, a little off, since in use it is found by trial; or
    with probability ``guessed`` the localizer's estimate. None if there is no localizer, so that
    the decoder learns to read images as they are.
    """
    if located is None:
        return None
    guess, still = chance.guess < guessed, torch.eye(2, 3)
    moved = (frame.cpu() != still).any(dim=2).any(dim=1)
    tried = located.detach().float().cpu()
    near = torch.where(guess[:, None, None], tried, frame.cpu() + chance.off)
    return torch.where(moved[:, None, None], near, still).to(frame.device)


def wrong_frames(frame: Tensor, chance: Chance) -> Tensor:
    """Frames [b, 2, 3] that a search may try in vain: half of them near the true ones, half far."""
    near = compose(frame.cpu(), chance.nudge)
    return torch.where(chance.here[:, None, None], near, chance.far).to(frame.device)


def split(count: int, parts: int) -> list[Tensor | slice]:
    """Rows of the parts of a batch of ``count``, as many in each.

    Every part takes the same share of each quarter of the batch, and neighbours stay together:
    then the groups whose deviation the discriminator sees, the pairs of one latent and every fourth
    image are in the parts what they are in the whole, and the losses of the parts have the mean
    that the whole has.
    """
    if parts == 1:
        return [slice(None)]
    quarters = torch.arange(count).view(4, parts, -1)
    return [quarters[:, part].flatten() for part in range(parts)]


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
    left = config.schedule.total_images - progress.images
    for optimizer in (state.reader_optimizer, state.discriminator_optimizer):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(options, left, config.schedule.decay_images)
    cast = partial(computing_in, precision, device)

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
    chance = Chance.draw(share, draw)
    batches = split(share, config.run.accumulate)
    terms: dict[str, Tensor] = {}

    def add(name: str, value: Tensor) -> None:
        """Account for a term of one part of the batch."""
        terms[name] = terms.get(name, 0) + value.detach().float() / len(batches)

    def generate(rows: Tensor | slice) -> Tensor:
        with cast():
            return generator(z[rows], bits[rows], progress.n_active)

    # Discriminator. Of a split batch the images are generated twice, to keep the activations of
    # one part at a time.
    discriminator.requires_grad_(True)
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    for rows in batches:
        with torch.set_grad_enabled(len(batches) == 1):
            fake = generate(rows)
        with cast():
            logits = discriminator(torch.cat([real[rows], fake.detach()]), sets=2)
        parts = losses.discriminator_terms(*logits.chunk(2))
        ((parts["real"] + parts["fake"]) / len(batches)).backward()
        add("discriminator_real", parts["real"])
        add("discriminator_fake", parts["fake"])
        if loss.r1 and number % loss.r1_interval == 0:
            seen = real[rows].requires_grad_(True)
            with cast():
                penalty = losses.r1_penalty(discriminator(seen), seen)
            (penalty * loss.r1 * loss.r1_interval / len(batches)).backward()
            add("r1", penalty)
    world.average_gradients(discriminator)
    state.discriminator_optimizer.step()

    # Generator and decoder.
    discriminator.requires_grad_(False)
    state.reader_optimizer.zero_grad(set_to_none=True)
    for rows in batches:
        if len(batches) > 1:
            fake = generate(rows)
        with cast():
            fake_logits = discriminator(fake)
        if config.fingerprint:
            own = chance.of(rows)
            seen, frame = perturb.perturb_images(
                fake,
                config.perturb if progress.readable else {},
                own.seeds.tolist(),
                progress.ramp(config),
            )
            with cast():
                located = decoder.locate(seen) if decoder.localizer is not None else None
                key_logits, recovered = decoder(
                    seen, reading_frame(frame, located, config.schedule.guessed, own)
                )
                astray = None
                if progress.astray(config):  # for the decoder alone: no matter of the generator's
                    some = slice(None, None, 4)
                    astray, _ = decoder(
                        seen[some].detach(), wrong_frames(frame[some], own.of(some))
                    )
            generator_terms = losses.generator_terms(
                fake_logits=fake_logits,
                key_logits=key_logits,
                bits=bits[rows],
                n_active=progress.n_active,
                recovered=recovered,
                z=z[rows],
                images=fake,
                frame=frame,
                located=located,
                astray=astray,
            )
            correct = (key_logits > 0) == (bits[rows] > 0)
            add("bit_accuracy", correct[:, : progress.n_active].float().mean())
        else:
            generator_terms = {"adversarial": losses.adversarial(fake_logits)}
        (losses.total(generator_terms, progress.weights(config)) / len(batches)).backward()
        for name, term in generator_terms.items():
            add(name, term)
    if loss.path_length and number % loss.path_length_interval == 0:
        noise = torch.randn(real.shape, generator=draw)
        mean = torch.zeros((), device=device)
        for rows in batches:
            embedding = generator.embedding(bits[rows][::2], progress.n_active)
            with cast():
                images = generator.synthesize(z[rows][::2], embedding)
            lengths = losses.path_lengths(images, embedding, noise[rows][::2].to(device))
            mean += lengths.detach().mean() / len(batches)
            penalty = (lengths - progress.path_mean).square().mean()
            (penalty * loss.path_length * loss.path_length_interval / len(batches)).backward()
            add("path_length", penalty)
        progress.path_mean += 0.01 * (float(world.average(mean)) - progress.path_mean)
    for module in (generator, decoder):
        world.average_gradients(module)
    state.reader_optimizer.step()

    follow(state.average_generator, generator, options, progress.images + options.batch)
    follow(state.average_decoder, decoder, options, progress.images + options.batch)

    means = world.average(torch.stack(list(terms.values())))
    values = dict(zip(terms, means.tolist(), strict=True))
    if config.fingerprint:
        progress.advance(values["bit_accuracy"], values["consistency"], config)
    return values
