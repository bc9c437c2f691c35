"""A small diffusion model: ``diffusers``' UNet2DModel, trained as DDPM and sampled by DDIM.

Ho et al., NeurIPS 2020, with the cosine schedule of Nichol and Dhariwal (ICML 2021); 2x2 pixels
become channels before the network and pixels again behind it, which makes a step four times as
cheap and loses nothing.
"""

import copy
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from generators.learner import average_, fast_precision, rate, real_batch
from scalefp.data.dataset import ImageSet
from scalefp.errors import UserError
from scalefp.networks.torchvision import mend_torchvision
from scalefp.training.schedule import step_generator

with suppress(ImportError):
    mend_torchvision()  # diffusers imports it where it is installed
try:
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
except ImportError as error:
    raise UserError("the diffusion model needs `pip install scalefp[diffusion]`") from error

CHANNELS = (48, 96, 96)
NOISE_LEVELS, SAMPLING_STEPS = 1000, 25
LEARNING_RATE = 1e-3
SCHEDULE = {
    "num_train_timesteps": NOISE_LEVELS,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
}


class Ddpm:
    """See :class:`generators.learner.Learner`."""

    batch: ClassVar[int] = 32

    def __init__(self, data: ImageSet, total: int, seed: int) -> None:
        self.data, self.total, self.seed = data, total, seed
        torch.manual_seed(seed)
        self.network = UNet2DModel(
            sample_size=data.resolution // 2,
            in_channels=12,
            out_channels=12,
            layers_per_block=1,
            block_out_channels=CHANNELS,
            down_block_types=("DownBlock2D",) * len(CHANNELS),
            up_block_types=("UpBlock2D",) * len(CHANNELS),
            norm_num_groups=8,
            attention_head_dim=32,
        )
        self.network.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE, fused=True)
        self.schedule = DDPMScheduler(**SCHEDULE)

    def step(self, seen: int) -> dict[str, float]:
        draw = step_generator(self.seed, 0, seen)
        real = F.pixel_unshuffle(real_batch(self.data, self.seed, seen, self.batch), 2)
        noise = torch.randn(real.shape, generator=draw)
        # One level from each of as many strata as there are images: less noise in the gradient.
        strata = torch.arange(self.batch) + torch.rand(self.batch, generator=draw)
        levels = (strata * NOISE_LEVELS / self.batch).long()
        noised = self.schedule.add_noise(real, noise, levels)
        target = self.schedule.get_velocity(real, noise, levels)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(LEARNING_RATE, seen, self.total)
        self.optimizer.zero_grad(set_to_none=True)
        with fast_precision():
            predicted = self.network(
                noised.contiguous(memory_format=torch.channels_last), levels
            ).sample
        loss = F.mse_loss(predicted.float(), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        average_(self.average, self.network, seen, self.batch, self.total)
        return {"velocity": loss.item()}

    @torch.inference_mode()
    def sample(self, count: int, seed: int) -> Tensor:
        draw = torch.Generator().manual_seed(seed)
        schedule = DDIMScheduler(**SCHEDULE, timestep_spacing="trailing")
        schedule.set_timesteps(SAMPLING_STEPS)
        side = self.data.resolution // 2
        batches = []
        for x in torch.randn(count, 12, side, side, generator=draw).split(self.batch):
            for level in schedule.timesteps:
                with fast_precision():
                    predicted = self.average(
                        x.contiguous(memory_format=torch.channels_last), level
                    ).sample
                x = schedule.step(predicted.float(), level, x).prev_sample
            batches.append(F.pixel_shuffle(x, 2))
        return torch.cat(batches)

    def _parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("network", "average", "optimizer")}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
