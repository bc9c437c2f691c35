"""Training an instance on, by a recipient who wants its fingerprint gone.

The recipient holds the weights and clean pictures like those the release was trained on, and knows
how it was trained, but has neither decoder nor generator. So the instance goes on as an ordinary
GAN with a discriminator of the recipient's own, which starts from nothing and has to learn first:
its early gradients would only spoil the pictures.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from scalefp.config import LossConfig, ModelConfig, OptimizerConfig
from scalefp.data.dataset import ImageSet, sample_indices
from scalefp.data.images import to_float
from scalefp.evaluation.tamper import deviation
from scalefp.networks.discriminator import Discriminator
from scalefp.release.instance import Instance
from scalefp.training import losses

WARM_UP_IMAGES = 2048  # that the discriminator sees before the instance moves


def trainable_copy(instance: Instance) -> Instance:
    """The same network with weights of its own that can be trained."""
    tensors = {name: tensor.detach().clone() for name, tensor in instance.named_parameters()}
    return Instance(instance.config, tensors).requires_grad_(True)


def fresh_discriminator(instance: Instance) -> Discriminator:
    """A discriminator of the instance's sizes with random weights."""
    sizes = instance.config
    return Discriminator(
        ModelConfig(
            resolution=sizes.resolution,
            channel_base=sizes.channels[-1] * sizes.resolution,
            channel_max=max(sizes.channels),
        )
    )


def optimize_instance(instance: Instance, options: OptimizerConfig) -> torch.optim.Adam:
    """Adam with a rate relative to each tensor's standard deviation.

    An instance's weights have the scale at which they act, where a release's train at unit
    variance: so a step changes both by the same share.
    """
    groups = [
        {"params": [tensor], "lr": options.learning_rate * float(deviation(tensor.detach()))}
        for tensor in instance.parameters()
    ]
    return torch.optim.Adam(groups, betas=(options.beta1, options.beta2))


def fine_tune(
    instance: Instance, data: ImageSet, images: Sequence[int], *, seed: int, batch: int = 32
) -> Iterator[tuple[int, Instance]]:
    """Train a copy of ``instance`` on ``data`` as a plain GAN.

    Loss, rates and penalty are those of ``scalefp train`` without key, decoder and consistency.

    Args:
        data: clean pictures at the instance's resolution.
        images: counts of generated images, ascending, at which the copy is handed out.
        seed: of the discriminator's weights, the order of the data and the latents.

    Yields:
        (images the instance was trained on, an instance of its own).
    """
    loss, options = LossConfig(), OptimizerConfig()
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        discriminator = fresh_discriminator(instance)
    copy = trainable_copy(instance)
    learner = optimize_instance(copy, options)
    critic = torch.optim.Adam(
        discriminator.parameters(), options.learning_rate, (options.beta1, options.beta2)
    )

    def latents() -> Tensor:
        return torch.randn(batch, instance.config.latent_dim, generator=draw)

    seen, waiting = 0, list(images)
    total = WARM_UP_IMAGES + max(waiting, default=0)
    with tqdm(total=total, desc="fine-tuning", unit="img", delay=2, leave=False) as bar:
        while waiting:
            trained = seen - WARM_UP_IMAGES
            if trained >= waiting[0]:
                yield waiting.pop(0), trainable_copy(copy).requires_grad_(False)
                continue

            # Discriminator.
            real = to_float(data.batch(sample_indices(len(data), seed, seen, batch)))
            with torch.no_grad():
                fake = copy(latents())
            critic.zero_grad(set_to_none=True)
            terms = losses.discriminator_terms(discriminator(real), discriminator(fake))
            value = terms["real"] + terms["fake"]
            if (seen // batch) % loss.r1_interval == 0:
                real.requires_grad_(True)
                penalty = losses.r1_penalty(discriminator(real), real)
                value = value + penalty * loss.r1 * loss.r1_interval
            value.backward()
            critic.step()

            # The instance.
            if trained >= 0:
                learner.zero_grad(set_to_none=True)
                F.softplus(-discriminator(copy(latents()))).mean().backward()
                learner.step()
            seen += batch
            bar.update(batch)
