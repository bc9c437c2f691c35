"""The trainable networks: generator, discriminator, decoder, and the layers they are made of."""

from scalefp.networks.decoder import Decoder
from scalefp.networks.discriminator import Discriminator
from scalefp.networks.generator import Generator

__all__ = ["Decoder", "Discriminator", "Generator"]
