"""Keys for a generator without any training: what a key changes is found in closed form.

A key moves the weights of one convolution, along directions that go with the picture: see
directions.py. The strength follows the PSNR asked for.
"""

from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from tqdm import tqdm

from scalefp.config import TrainConfig, flat_options
from scalefp.data.images import to_uint8
from scalefp.errors import UserError
from scalefp.metrics import psnr, psnr_of
from scalefp.pretrained.adopted import Adopted, adopt, draw
from scalefp.pretrained.directions import (
    FAINT,
    Features,
    factors,
    keyed_convolution,
    sees,
    settle_strength,
)
from scalefp.pretrained.drawn import DrawnInverter, check_unknown
from scalefp.pretrained.encoder import encoder_of
from scalefp.pretrained.inputs import ENCODED
from scalefp.pretrained.inversion import InversionSizes, Inverter
from scalefp.pretrained.modulation import Parent, modulate
from scalefp.pretrained.release import save_pretrained
from scalefp.training.distributed import pick_device
from scalefp.training.log import TrainingLog
from scalefp.training.perturbed import reading_figures
from scalefp.training.run import locked, make_run_folder, named_memory_errors

TRIED = 4  # pictures that are read at last, to say what the release is good for


class Fitting:
    """What the options name, and what a key changes of it, found from some pictures."""

    def __init__(self, config: TrainConfig, adopted: Adopted, device: torch.device) -> None:
        options = config.modulation
        torch.manual_seed(config.seed)
        self.config, self.adopted, self.device = config, adopted, device
        self.parent: Parent = modulate(
            adopted.network, config.model.n_bits, adopted.layers, deltas=options.deltas,
            key_gain=options.key_gain, delta_gain=options.delta_gain, method=options.method,
            factored=True,
        ).to(device).requires_grad_(False)  # fmt: skip
        self.layer = keyed_convolution(self.parent.network, self.parent.names)
        self.source = torch.Generator().manual_seed(config.seed)
        self.encoded = config.inputs["_target_"] == ENCODED

    def latents(self, count: int, what: str) -> list[Tensor]:
        """So many inputs, one by one: pictures may be large."""
        bar = tqdm(range(count), desc=what, unit="img", delay=2, leave=False)
        return [draw(self.adopted.inputs, 1, self.source).to(self.device) for _ in bar]

    def features(self, latents: list[Tensor]) -> Features:
        """What the convolution sees of them."""
        found = Features.none(sees(self.layer), self.device)
        with found.watching(self.layer):
            for one in tqdm(latents, desc="features", unit="img", delay=2, leave=False):
                self.parent.original(one)
        return found

    def change(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bits [1, n] of a random key, the original's picture of an input, and the key's."""
        bits = torch.randint(0, 2, (1, self.parent.n_bits), generator=self.source).to(self.device)
        of = self.adopted.pictures.of
        return bits, of(self.parent.original(latents)), of(self.parent(latents, bits))

    def strengthen(self, latents: list[Tensor]) -> None:
        """Let keys change pictures as much as is asked for: by their mean PSNR."""
        (keyed, _), wanted = self.parent.layers()[0], self.config.schedule.hide_psnr
        assert keyed.factors is not None and wanted is not None
        signs = torch.ones(1, self.parent.n_bits, device=self.device)
        whole = self.layer.weight.norm() / keyed.changed(signs, self.layer.weight).norm()
        keyed.factors[0].mul_(FAINT * whole)

        def kept() -> float:
            bar = tqdm(latents, desc="strength", unit="img", delay=2, leave=False)
            pairs = [self.change(one)[1:] for one in bar]
            return fmean(psnr_of(float((made - was).square().mean())) for was, made in pairs)

        settle_strength(kept, keyed.factors[0].mul_, wanted)

    def fit(self) -> None:
        """Find what a key changes."""
        latents = self.latents(self.config.schedule.total_images, "encode")
        (keyed, _), features = self.parent.layers()[0], self.features(latents)
        assert keyed.factors is not None
        directions = features.directions(encoded=self.encoded)
        found = factors(directions, self.layer, self.parent.n_bits, self.source)
        for factor, values in zip(keyed.factors, found, strict=True):
            factor.copy_(values)
        self.strengthen(latents)

    def inverter(self) -> Inverter | DrawnInverter:
        """What reads the keys."""
        model, options = self.config.model, self.config.modulation
        side, steps = model.resolution, options.inversion_steps
        pictures = self.adopted.pictures
        if not self.encoded:
            starts, rounds = options.inversion_starts, options.inversion_rounds
            sizes = InversionSizes(side, model.n_bits, steps, 1, starts, rounds)
            return DrawnInverter(self.parent, self.adopted.inputs, pictures, sizes)
        encoder = encoder_of(self.config.inputs).to(self.device)
        blank = torch.zeros(1, 3, side, side)
        factor = side // int(encoder(blank.to(self.device)).shape[-1])
        sizes = InversionSizes(side, model.n_bits, steps, factor)
        return Inverter(self.parent, encoder, pictures, sizes)

    def measure(
        self, inverter: Inverter | DrawnInverter
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """How keys are read from new pictures as 8-bit files, and these pictures to look at."""
        steps = inverter.ticks
        read, kept, found = [], [], []
        with tqdm(total=TRIED * steps, desc="read", unit="step", leave=False) as bar:
            for one in self.latents(TRIED, "encode"):
                bits, was, made = self.change(one)
                shown = to_uint8(torch.cat([was, made]))
                file = shown[1:].float() / 127.5 - 1
                read.append((inverter.signs(file, bar.update), bits))
                kept.append(torch.as_tensor(psnr(file, was.clamp(-1, 1))))
                found.append((shown[:1], shown[1:], to_uint8((made - was) * 10)))
        signs, bits = (torch.cat(parts) for parts in zip(*read, strict=True))
        figures = {name: float(value) for name, value in reading_figures(signs, bits).items()}
        figures["psnr"] = float(torch.cat(kept).mean())
        rows = [torch.cat(parts) for parts in zip(*found, strict=True)]
        return figures, {"keys": torch.cat(rows[:2]), "difference": rows[2]}


def check_fitting(config: TrainConfig) -> Adopted:
    """What is fitted, or a UserError for all that can be known to be wrong."""
    adopted = adopt(config)
    keyed_convolution(adopted.network, sorted({*adopted.layers, *config.modulation.deltas}))
    if not config.modulation.deltas:
        raise UserError("modulation.reader=inversion changes weights: name modulation.deltas")
    if config.inputs["_target_"] != ENCODED:
        check_unknown(draw(adopted.inputs, 1, torch.Generator()), config.model.n_bits)
    if config.schedule.hide_psnr is None:
        raise UserError("modulation.reader=inversion needs the PSNR to keep: schedule.hide_psnr=38")
    return adopted


@torch.no_grad()
def fit(config: TrainConfig, run_dir: str | Path) -> dict[str, float]:
    """Write the release of a generator that is read by inversion; nothing is trained.

    Writes ``release.safetensors``, ``log.jsonl`` and ``grids/*.png`` as a training does. It takes
    minutes and is begun anew if it was interrupted.

    Returns:
        ``evidence``, ``bit_accuracy`` and ``psnr`` of a few new pictures.

    Raises:
        UserError: options, generator, pictures or run folder that do not work.
    """
    run_dir, images = make_run_folder(run_dir), config.schedule.total_images
    with locked(run_dir), named_memory_errors(config):
        fitting = Fitting(config, check_fitting(config), pick_device(config.run))
        fitting.fit()
        inverter = fitting.inverter()
        figures, pictures = fitting.measure(inverter)
        reached = {"active_bits": config.model.n_bits, **figures}
        note = {"images": images, "options": flat_options(config), "reached": reached}
        save_pretrained(
            run_dir / "release.safetensors", inverter.sizes, config, fitting.parent, None, note
        )
        with TrainingLog(run_dir, 0, tensorboard=config.run.tensorboard) as log:
            log.write({"images": images, "n_active": config.model.n_bits, **figures})
            log.note_options(flat_options(config))
            for name, shown in pictures.items():
                log.show(name, shown, images)
            return log.figures
