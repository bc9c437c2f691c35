"""Training an instance on, by a recipient who wants its fingerprint gone.

The recipient holds the weights and pictures, clean ones like those the release was trained on or
what the instance makes, and knows how it was trained, but has neither decoder nor generator. So
the instance goes on as an ordinary GAN with a discriminator of the recipient's own, which starts
from nothing and has to learn first: its early gradients would only spoil the pictures. Or a fresh
network of the same sizes learns to draw what the instance draws (:func:`distill`).
"""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from scalefp.config import LossConfig, ModelConfig, OptimizerConfig
from scalefp.data.dataset import sample_indices
from scalefp.data.images import to_float
from scalefp.evaluation.copies import C, Copy, draw_inputs, network_of, trainable_copy
from scalefp.evaluation.tamper import deviation
from scalefp.networks.discriminator import Discriminator
from scalefp.networks.layers import ACTIVATION_GAIN, downsample
from scalefp.pretrained.instance import PretrainedInstance
from scalefp.release.instance import Instance
from scalefp.training import losses

WARM_UP_IMAGES = 2048  # that the discriminator sees before the instance moves


def fresh_discriminator(instance: Copy) -> Discriminator:
    """A discriminator with random weights, of the instance's sizes where these are known."""
    if isinstance(instance, PretrainedInstance):
        return Discriminator(ModelConfig(resolution=instance.config.resolution))
    sizes = instance.config
    return Discriminator(
        ModelConfig(
            resolution=sizes.resolution,
            channel_base=sizes.channels[-1] * sizes.resolution,
            channel_max=max(sizes.channels),
        )
    )


def optimize_instance(instance: nn.Module, options: OptimizerConfig) -> torch.optim.Adam:
    """Adam with a rate relative to each tensor's standard deviation.

    An instance's weights have the scale at which they act, where a release's train at unit
    variance: so a step changes both by the same share.
    """
    groups = [
        {"params": [tensor], "lr": options.learning_rate * float(deviation(tensor.detach()))}
        for tensor in instance.parameters()
    ]
    return torch.optim.Adam(groups, betas=(options.beta1, options.beta2))


def train_on(
    network: nn.Module,
    made: Callable[[], Tensor],
    discriminator: Discriminator,
    data: Tensor,
    images: Sequence[int],
    *,
    seed: int,
    batch: int = 32,
) -> Iterator[int]:
    """Train a network as the generator of a plain GAN, in place.

    Loss, rates and penalty are those of ``scalefp train`` without key, decoder and consistency.

    Args:
        made: draws inputs and gives the network's images [batch, 3, R, R] of them.
        discriminator: the recipient's own.
        data: the recipient's pictures at the network's resolution, uint8 [n, 3, R, R].
        images: counts of generated images, ascending.
        seed: of the order of the data.

    Yields:
        Each of ``images``, when the network was trained on so many.
    """
    loss, options = LossConfig(), OptimizerConfig()
    learner = optimize_instance(network, options)
    critic = torch.optim.Adam(
        discriminator.parameters(), options.learning_rate, (options.beta1, options.beta2)
    )
    seen, waiting = 0, list(images)
    total = WARM_UP_IMAGES + max(waiting, default=0)
    with tqdm(total=total, desc="fine-tuning", unit="img", delay=2, leave=False) as bar:
        while waiting:
            trained = seen - WARM_UP_IMAGES
            if trained >= waiting[0]:
                yield waiting.pop(0)
                continue

            # Discriminator.
            real = to_float(data[torch.from_numpy(sample_indices(len(data), seed, seen, batch))])
            with torch.no_grad():
                fake = made()
            critic.zero_grad(set_to_none=True)
            terms = losses.discriminator_terms(discriminator(real), discriminator(fake))
            value = terms["real"] + terms["fake"]
            if (seen // batch) % loss.r1_interval == 0:
                real.requires_grad_(True)
                penalty = losses.r1_penalty(discriminator(real), real)
                value = value + penalty * loss.r1 * loss.r1_interval
            value.backward()
            critic.step()

            # The network.
            if trained >= 0:
                learner.zero_grad(set_to_none=True)
                F.softplus(-discriminator(made())).mean().backward()
                learner.step()
            seen += batch
            bar.update(batch)


def fine_tune(
    instance: C, data: Tensor, images: Sequence[int], *, seed: int, batch: int = 32
) -> Iterator[tuple[int, C]]:
    """Train a copy of ``instance`` on ``data`` as a plain GAN, as :func:`train_on` does.

    Args:
        data: the recipient's pictures at the instance's resolution, uint8 [n, 3, R, R].
        images: counts of generated images, ascending, at which the copy is handed out.
        seed: of the discriminator's weights, the order of the data and the inputs.

    Yields:
        (images the instance was trained on, an instance of its own).
    """
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        discriminator = fresh_discriminator(instance)
    copy = trainable_copy(instance)

    def made() -> Tensor:
        drawn: Tensor = copy(draw_inputs(copy, batch, draw))
        return drawn

    network = network_of(copy)
    for count in train_on(network, made, discriminator, data, images, seed=seed, batch=batch):
        handed_out = trainable_copy(copy)
        network_of(handed_out).requires_grad_(False)
        yield count, handed_out


def fresh_network(instance: Instance, seed: int) -> Instance:
    """A network of the instance's sizes with random weights (He et al. 2015) and no bias."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in instance.named_parameters():
        fresh = torch.zeros_like(tensor)
        if name.endswith("weight"):
            gain = 1.0 if "to_rgb" in name else ACTIVATION_GAIN
            fresh = torch.randn(tensor.shape, generator=draw) * gain / tensor[0].numel() ** 0.5
        tensors[name] = fresh
    return Instance(instance.config, tensors).requires_grad_(True)


def drawing_error(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Mean absolute difference of pictures [b, 3, R, R], added up over the sides R, R/2, ... 8."""
    error = (drawn - wanted).abs().mean()
    while drawn.shape[-1] > 8:
        drawn, wanted = downsample(drawn), downsample(wanted)
        error = error + (drawn - wanted).abs().mean()
    return error


def distill(
    instance: Instance, images: Sequence[int], *, seed: int, batch: int = 32
) -> Iterator[tuple[int, Instance]]:
    """Train a fresh network to give the instance's picture of every latent.

    Args:
        images: counts of pictures seen, ascending, at which the network is handed out.
        seed: of its weights and the latents.

    Yields:
        (pictures seen, a network of its own).
    """
    draw = torch.Generator().manual_seed(seed)
    student = fresh_network(instance, seed)
    learner = torch.optim.Adam(student.parameters(), 1e-3, (0.9, 0.99))
    seen, waiting = 0, list(images)
    with tqdm(total=max(waiting, default=0), desc="distilling", unit="img", leave=False) as bar:
        while waiting:
            if seen >= waiting[0]:
                yield waiting.pop(0), trainable_copy(student).requires_grad_(False)
                continue
            z = torch.randn(batch, instance.config.latent_dim, generator=draw)
            with torch.no_grad():
                wanted = instance(z)
            learner.zero_grad(set_to_none=True)
            drawing_error(student(z), wanted).backward()
            learner.step()
            seen += batch
            bar.update(batch)
