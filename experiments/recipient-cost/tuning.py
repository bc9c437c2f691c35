"""One generator for each key by fine-tuning, as Stable Signature makes them (ICCV 2023).

The decoder stays as it is. A copy of the generator without a key is trained in its last layers
until the decoder reads the key from its pictures, which are held to what they were before. There
the extractor and the latent decoder are networks of others, the fidelity is perceptual, and a key
of 48 bits takes 100 steps of 4 images, about a minute of a GPU.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from scalefp.data.images import to_uint8
from scalefp.key import Key
from scalefp.metrics import psnr_of
from scalefp.release.instance import Instance, folded_tensors, sizes_of
from scalefp.release.model import Model
from scalefp.training.losses import key_bits

STEPS, BATCH, LOOK = 100, 8, 10  # of training; and after how many steps the key is read
RATE, FIDELITY = 2e-3, 10.0  # of Adam; weight of the squared error beside that of the bits
BLOCKS = 2  # that are trained, from the last one
HELD = 64  # images that the key is read from


@torch.no_grad()
def without_key(model: Model) -> Instance:
    """The generator as an instance of no key: no key bit is switched on."""
    generator = model.generator
    nothing = torch.zeros(1, generator.config.embedding_width)
    return Instance(sizes_of(generator), folded_tensors(generator, nothing))


def last_layers(network: Instance) -> list[Tensor]:
    """What is trained: the tensors of the last blocks."""
    count = len(network.config.channels)
    blocks = tuple(f"block{i}_" for i in range(count - BLOCKS, count))
    return [tensor for name, tensor in network.named_parameters() if name.startswith(blocks)]


def fine_tune(model: Model, key: Key, seed: int) -> list[dict[str, float]]:
    """Train for one key; after every :data:`LOOK` steps what is read, and what it took so far.

    Returns:
        Rows with ``step``, ``seconds`` of processor time of the training alone, ``bit_accuracy`` of
        single 8-bit images of other latents, and their ``psnr`` to the same ones without a key.
    """
    plain, network = without_key(model), without_key(model)
    weights = [tensor.requires_grad_(True) for tensor in last_layers(network)]
    optimizer = torch.optim.Adam(weights, lr=RATE)
    draw = torch.Generator().manual_seed(seed)
    held = torch.randn(HELD, plain.config.latent_dim, generator=draw)
    bits = torch.from_numpy(key.bits).float().expand(BATCH, -1)
    rows, seconds = [], 0.0
    for step in range(1, STEPS + 1):
        begun = time.process_time()
        z = torch.randn(BATCH, plain.config.latent_dim, generator=draw)
        with torch.no_grad():
            wanted = plain(z)
        images: Tensor = network(z)
        logits, _ = model.decoder(images.clamp(-1, 1))
        loss = key_bits(logits, bits) + FIDELITY * (images - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds += time.process_time() - begun
        if step % LOOK == 0:
            rows.append({"step": step, "seconds": seconds, **_read(model, key, network, held)})
    return rows


@torch.no_grad()
def _read(model: Model, key: Key, network: Instance, held: Tensor) -> dict[str, float]:
    pixels, plain = (to_uint8(n(held).clamp(-1, 1)) for n in (network, without_key(model)))
    read = model.decode(pixels, search=False, progress=False)
    error = (pixels.double() - plain.double()).square().mean() / 127.5**2
    return {"bit_accuracy": float((read.bits == key.bits).mean()), "psnr": psnr_of(float(error))}


def measure_tuning(model: Model, keys: list[Key], seed: int) -> dict[str, Any]:
    """The curve of each key, and beside it what the same keys' instances read."""
    network = without_key(model)
    draw = torch.Generator().manual_seed(seed)
    held = torch.randn(HELD, network.config.latent_dim, generator=draw)
    return {
        "weights": sum(tensor.numel() for tensor in last_layers(network)),
        "curves": [fine_tune(model, key, seed) for key in keys],
        "instances": [_read(model, key, model.instantiate(key), held) for key in keys],
    }
