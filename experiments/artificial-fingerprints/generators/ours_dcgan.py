"""scalefp's own generator with maps, trained against a DCGAN's discriminator, which sees marks."""

import torch
from torch import Tensor, nn

from generators.dcgan import Dcgan
from generators.ours import OursWithMaps, draw
from scalefp.networks.generator import Generator


class OursAgainstDcgan(Dcgan):
    """See :class:`generators.learner.Learner`. Losses, rates and discriminator are the DCGAN's."""

    def make_generator(self) -> nn.Module:
        ours = OursWithMaps(self.data, self.total, self.seed)
        self.sizes = ours.config.model
        return ours.state.generator

    def draw(self, generator: nn.Module, count: int, chance: torch.Generator) -> Tensor:
        assert isinstance(generator, Generator)
        return draw(generator, self.sizes, count, chance)

    @torch.inference_mode()
    def sample(self, count: int, seed: int) -> Tensor:
        return self.draw(self.average, count, torch.Generator().manual_seed(seed))
