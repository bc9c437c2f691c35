"""One training step of all networks: what is computed, in the order it happens.

All randomness comes from (seed, process, images seen), so that a run that was stopped goes on as
if it had not been.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from scalefp.config import TrainConfig
from scalefp.data.dataset import ImageSet
from scalefp.training import losses
from scalefp.training.batch import Batch, split
from scalefp.training.capture import Captured, Terms
from scalefp.training.distributed import World
from scalefp.training.feed import Feed
from scalefp.training.perturbed import decode_perturbed, reading_figures
from scalefp.training.precision import computing_in
from scalefp.training.schedule import (
    Progress,
    Scheduled,
    learning_rate,
    smoothing,
    step_seed,
)
from scalefp.training.state import (
    TrainingState,
    ema_update,
    make_capturable,
    set_learning_rate,
)
from scalefp.training.tampered import KEYS, disturbed_images

# What the schedule goes by.
LOOKED_AT = (
    "active_bit_accuracy", "bit_accuracy", "evidence", "consistency", "visible", "path_mean",
)  # fmt: skip
PATH_SMOOTHING = 0.01  # weight of the newest step in the running mean of path lengths


def mean_terms(parts: Sequence[Terms]) -> Terms:
    """Mean of each term over the parts of a batch."""
    return {
        name: torch.stack([part[name].detach().float() for part in parts]).mean()
        for name in parts[0]
    }


class Due(NamedTuple):
    """What a step consists of beside what every step does."""

    r1: bool
    path_length: bool
    weight_noise: bool
    perturbed: bool  # whether images meet perturbations; not before all bits are readable

    @classmethod
    def at(cls, config: TrainConfig, progress: Progress) -> "Due":
        """In the step after so many images."""
        loss, number = config.loss, progress.images // config.optimizer.batch
        readable = config.fingerprint and progress.readable
        return cls(
            r1=loss.r1 > 0 and number % loss.r1_interval == 0,
            path_length=loss.path_length > 0 and number % loss.path_length_interval == 0,
            weight_noise=(
                readable and loss.weight_noise > 0 and number % loss.weight_noise_interval == 0
            ),
            perturbed=readable,
        )


class Step:
    """The training step of all networks, again and again.

    What one step computes (:meth:`compute`) depends on nothing that the host reads from the device:
    images, draws and what the schedule says are tensors there. So on a GPU steps are captured.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: TrainingState,
        data: ImageSet,
        world: World,
        precision: torch.dtype,
        *,
        captured: bool = True,
    ) -> None:
        """
        Args:
            captured: False to compute every step kernel by kernel, on a GPU as elsewhere.
        """
        self.config, self.state, self.world = config, state, world
        batch = config.optimizer.batch
        self.feed = Feed(data, config.data, world, seed=config.seed, batch=batch)
        self.scheduled = Scheduled(config.model.n_bits, world.device)
        self.captured = Captured(world.device, wanted=captured and world.size == 1)
        self.computing = partial(computing_in, precision, world.device)
        self.optimizers = state.reader_optimizer, state.discriminator_optimizer
        if world.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # shapes never change
            make_capturable(world.device, *self.optimizers)

    def __call__(self) -> Terms:
        """One step on ``optimizer.batch`` images; moves the curriculum on where it is time.

        Returns:
            The unweighted loss terms and how keys are read, of this process. They hold until the
            next step.
        """
        config, progress, options = self.config, self.state.progress, self.config.optimizer
        left = config.schedule.total_images - progress.images
        rate = learning_rate(options, left, config.schedule.decay_images)
        set_learning_rate(rate, *self.optimizers)
        self.scheduled.set(progress, config)
        self.feed.load(progress.images)
        seed = step_seed(config.seed, self.world.rank, progress.images)
        due = Due.at(config, progress)
        terms = self.captured(due, seed, partial(self.compute, due))
        for average, network in self.state.averages():
            ema_update(average, network, options, progress.images + options.batch)
        if config.fingerprint:
            progress.unread.add({name: terms[name] for name in LOOKED_AT if name in terms})
            if (progress.images // options.batch + 1) % config.schedule.look_steps == 0:
                self.look()
        return terms

    def look(self) -> None:
        """Read how well the steps since the last look went, and move the schedule on."""
        progress = self.state.progress
        means, counts = progress.unread.read(self.world), progress.unread.counts
        progress.unread.clear()
        steps = counts["bit_accuracy"]
        progress.note_reading(means, steps)
        if "path_mean" in means:
            share = smoothing(counts["path_mean"], PATH_SMOOTHING)
            progress.path_mean += share * (means["path_mean"] - progress.path_mean)
        difference = losses.difference(means, self.config.loss.visibility)
        progress.advance(means["active_bit_accuracy"], difference, self.config, steps)

    def compute(self, due: Due) -> Terms:
        """What a step does to the networks, all of it on the device."""
        config, state, world = self.config, self.state, self.world
        source = self.captured.source
        batch = Batch.draw(config, self.feed.images(source), source)
        rows = split(len(batch.real), config.run.accumulate, source.device)
        parts = [batch.of(each) for each in rows]
        # Of a split batch the images are made twice, to keep the activations of one part at a time.
        made = self.generate(batch) if len(parts) == 1 else None

        state.discriminator.requires_grad_(True)
        state.discriminator_optimizer.zero_grad(set_to_none=True)
        terms = self.discriminator_gradients(parts, made, due)
        world.average_gradients(state.discriminator)
        state.discriminator_optimizer.step()

        state.discriminator.requires_grad_(False)
        state.reader_optimizer.zero_grad(set_to_none=True)
        terms |= self.generator_gradients(parts, made, due)
        if due.path_length:
            shape = batch.real.shape
            noise = torch.randn(shape, generator=source, device=source.device)
            terms |= self.path_length_gradients(parts, [noise[each] for each in rows])
        if due.weight_noise:
            terms |= self.weight_noise_gradients(parts[0])
        for module in (state.generator, state.decoder):
            world.average_gradients(module)
        state.reader_optimizer.step()
        return terms

    def generate(self, part: Batch) -> Tensor:
        """The images [b, 3, R, R] of a part's latents and keys."""
        with self.computing():
            images: Tensor = self.state.generator(part.z, part.bits, self.scheduled.active)
        return images

    def discriminator_gradients(
        self, parts: Sequence[Batch], made: Tensor | None, due: Due
    ) -> Terms:
        """Add the discriminator's gradients from real and generated images, every so often with R1.

        Args:
            parts: of the batch, of one size.
            made: the generated images if they are kept; else they are made part by part.
        """
        discriminator, loss, found = self.state.discriminator, self.config.loss, []
        for part in parts:
            with torch.no_grad():
                fake = self.generate(part) if made is None else made.detach()
            real = part.shown_real()
            with self.computing():
                logits = discriminator(torch.cat([real, part.shown(fake)]), sets=2)
            adversarial = losses.discriminator_terms(*logits.chunk(2))
            ((adversarial["real"] + adversarial["fake"]) / len(parts)).backward()
            terms = {f"discriminator_{name}": term for name, term in adversarial.items()}
            if due.r1:
                seen = real.detach().requires_grad_(True)
                with self.computing():
                    terms["r1"] = losses.r1_penalty(discriminator(seen), seen)
                (terms["r1"] * loss.r1 * loss.r1_interval / len(parts)).backward()
            found.append(terms)
        return mean_terms(found)

    def generator_gradients(self, parts: Sequence[Batch], made: Tensor | None, due: Due) -> Terms:
        """Add the gradients of generator and decoder; arguments as of the discriminator's."""
        weights, found = self.scheduled.weights(self.config), []
        for part in parts:
            fake = self.generate(part) if made is None else made
            with self.computing():
                fake_logits = self.state.discriminator(part.shown(fake))
            if self.config.fingerprint:
                terms, figures = self.reading_terms(part, fake, fake_logits, due)
            else:
                terms, figures = losses.picture_terms(fake_logits, fake), {}
            (losses.total(terms, weights) / len(parts)).backward()
            found.append(figures | terms)
        return mean_terms(found)

    def reading_terms(
        self, part: Batch, fake: Tensor, fake_logits: Tensor, due: Due
    ) -> tuple[Terms, Terms]:
        """Loss terms of generated images whose keys are read, and how well they are."""
        active, ramp = self.scheduled.active, self.scheduled.ramp
        probabilities = self.config.perturb if due.perturbed else {}
        decoded = decode_perturbed(
            self.state.decoder, fake, probabilities, ramp, part.chance, self.computing
        )
        terms = losses.generator_terms(
            fake_logits=fake_logits,
            key_logits=decoded.logits,
            bits=part.bits,
            active=active,
            recovered=decoded.latents,
            z=part.z,
            images=fake,
            frame=decoded.frame,
            located=decoded.located,
        )
        correct = (decoded.logits > 0) == (part.bits > 0)
        figures = {"active_bit_accuracy": losses.over_active(correct, active)}
        return terms, figures | reading_figures(decoded.logits, part.bits)

    def path_length_gradients(self, parts: Sequence[Batch], noise: Sequence[Tensor]) -> Terms:
        """Add the generator's gradients from how fast its images move with the key's embedding.

        Args:
            noise: standard normal, shaped as the images of each part.
        """
        generator, loss, found = self.state.generator, self.config.loss, []
        for part, directions in zip(parts, noise, strict=True):
            embedding = generator.embedding(part.bits[::2], self.scheduled.active)
            with self.computing():
                images = generator.synthesize(part.z[::2], embedding)
            lengths = losses.path_lengths(images, embedding, directions[::2])
            penalty = (lengths - self.scheduled.path_mean).square().mean()
            (penalty * loss.path_length * loss.path_length_interval / len(parts)).backward()
            found.append({"path_length": penalty, "path_mean": lengths.detach().mean()})
        return mean_terms(found)

    def weight_noise_gradients(self, part: Batch) -> Terms:
        """Add the gradients of generator and decoder from reading a few disturbed instances.

        Args:
            part: of the batch, whose latents and first keys are taken.
        """
        loss, active, generator = self.config.loss, self.scheduled.active, self.state.generator
        latents = part.z[::2]
        keys = min(KEYS, len(latents))
        each = len(latents) // keys
        rows = slice(0, keys * each)
        bits = part.bits[:keys]
        images = disturbed_images(
            generator,
            latents[rows].unflatten(0, (keys, each)),
            generator.embedding(bits, active),
            loss.weight_noise_strength * self.scheduled.ramp,
            self.captured.source,
        )
        decoded = decode_perturbed(
            self.state.decoder, images, {}, 0.0, part.chance.of(rows), self.computing
        )
        wanted = bits.repeat_interleave(each, dim=0)
        term = losses.key_bits(decoded.logits, wanted, active)
        (term * loss.weight_noise * loss.weight_noise_interval).backward()
        correct = (decoded.logits > 0) == (wanted > 0)
        figures = {"weight_noise": term, "disturbed_bit_accuracy": correct.float().mean()}
        return mean_terms([figures])
