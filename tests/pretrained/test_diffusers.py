"""The decoders of latent diffusion, as ``diffusers`` has them: folded, saved and loaded by it."""

from pathlib import Path
from typing import Any

import pytest
import torch

import scalefp
from scalefp.key import Key
from scalefp.networks.torchvision import mend_torchvision
from scalefp.pretrained.encoder import PictureEncoder
from scalefp.pretrained.inputs import ENCODED
from scalefp.pretrained.instance import PretrainedInstance

diffusers = pytest.importorskip("diffusers")
mend_torchvision()  # which diffusers imports if it is installed

KEY = Key.from_hex("c35a" * 2)  # 32 bits
LATENTS = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))


TINY: dict[str, Any] = {
    "encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8],
    "num_encoder_blocks": [1, 1], "num_decoder_blocks": [1, 1], "latent_channels": 4,
}  # fmt: skip
KL: dict[str, Any] = {
    "block_out_channels": [8, 8], "norm_num_groups": 4, "layers_per_block": 1,
    "latent_channels": 4, "sample_size": 16, "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}  # fmt: skip


def tiny() -> Any:
    return diffusers.AutoencoderTiny(**TINY)


def kl() -> Any:
    return diffusers.AutoencoderKL(**KL)


def layers_of_the_decoder(vae: Any) -> list[str]:
    return [
        name for name, module in vae.named_modules()
        if isinstance(module, torch.nn.Conv2d) and name.startswith(("decoder", "post_quant"))
    ]  # fmt: skip


@pytest.mark.parametrize(("make", "tiles"), [(tiny, False), (kl, True)])
def test_the_pipelines_class_loads_a_folded_autoencoder_and_decodes_the_same(
    make: Any, tiles: bool, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    vae = make().eval()
    layers = layers_of_the_decoder(vae)
    parent = scalefp.modulate(vae, 32, layers, key_gain=0.3, method="decode")
    bits = torch.from_numpy(KEY.bits)[None].expand(3, -1)
    with torch.no_grad():
        original, under = vae.decode(LATENTS).sample, parent(LATENTS, bits).sample
    assert (under - original).abs().max() > 1e-2

    folded = parent.fold(KEY)
    assert not [m for m in folded.modules() if type(m).__module__.startswith("scalefp")]
    folded.save_pretrained(tmp_path)
    loaded = make().from_pretrained(tmp_path, local_files_only=True).eval()
    assert loaded.state_dict().keys() == vae.state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(loaded.decode(LATENTS).sample, under, atol=1e-5, rtol=1e-5)
        # An encoder that makes no picture has stayed what it was.
        pictures = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
        for one, other in zip(loaded.encode(pictures)[0:1], vae.encode(pictures)[0:1], strict=True):
            if hasattr(one, "mean"):
                one, other = one.mean, other.mean
            if isinstance(one, torch.Tensor):
                torch.testing.assert_close(one, other)
        loaded.enable_slicing()
        torch.testing.assert_close(loaded.decode(LATENTS).sample, under, atol=1e-5, rtol=1e-5)
        if not tiles:  # of a configuration as small as this one, that class takes none
            return
        loaded.enable_tiling()
        folded.enable_tiling()
        torch.testing.assert_close(loaded.decode(LATENTS).sample, folded.decode(LATENTS).sample)


def test_attention_of_the_decoder_is_left_alone() -> None:
    names = scalefp.modulate(kl(), 8, method="decode").names
    assert names and not [name for name in names if "attention" in name or ".to_" in name]


@pytest.mark.parametrize(("name", "options"), [("AutoencoderTiny", TINY), ("AutoencoderKL", KL)])
def test_its_encoder_feeds_a_training_and_draws_nothing_itself(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    vae = getattr(diffusers, name)(**options).eval()
    torch.save(vae.state_dict(), tmp_path / "vae.pt")
    chosen = {"_target_": f"diffusers.{name}", "weights": str(tmp_path / "vae.pt"), **options}
    encoder = PictureEncoder(chosen, method="encode")
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    latents = encoder(pictures)
    with torch.no_grad():
        found = vae.encode(pictures)
        expected = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
    torch.testing.assert_close(latents, expected)


def folded_kl() -> Any:
    torch.manual_seed(1)
    vae = kl().eval()
    parent = scalefp.modulate(vae, 32, layers_of_the_decoder(vae), key_gain=0.3, method="decode")
    return parent.fold(KEY)


def test_a_pipeline_makes_its_pictures_with_a_recipients_autoencoder(tmp_path: Path) -> None:
    folded_kl().save_pretrained(tmp_path / "recipient-a")
    torch.manual_seed(2)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1,
        sample_size=8, patch_size=2,
    ).eval()  # fmt: skip
    pipe = diffusers.DiTPipeline(transformer, kl().eval(), diffusers.DDIMScheduler())

    def pictures(pipe: Any) -> Any:
        pipe.set_progress_bar_config(disable=True)
        source = torch.Generator().manual_seed(3)
        how = {"num_inference_steps": 2, "generator": source, "output_type": "np"}
        return torch.from_numpy(pipe(class_labels=[1], **how).images)

    original = pictures(pipe)
    pipe.vae = diffusers.AutoencoderKL.from_pretrained(tmp_path / "recipient-a")
    recipients = pictures(pipe)
    assert (recipients - original).abs().max() > 1e-2
    pipe.vae = folded_kl()
    torch.testing.assert_close(recipients, pictures(pipe), atol=1e-5, rtol=1e-5)
    pipe.save_pretrained(tmp_path / "pipe")
    again = diffusers.DiTPipeline.from_pretrained(tmp_path / "pipe")
    torch.testing.assert_close(recipients, pictures(again), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_an_instance_file_is_what_its_loaders_take(half: bool, tmp_path: Path) -> None:
    """As the file of a folder beside the original's config.json, and as a single file."""
    folded = folded_kl()
    origin = {
        "generator": {"_target_": "diffusers.AutoencoderKL", **KL},
        "inputs": {"_target_": "scalefp.pretrained.inputs.Normal", "shape": [4, 8, 8]},
        "modulation": {"method": "decode", "range": [-1, 1]},
    }
    kl().save_config(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    PretrainedInstance(folded, origin, 16).save(file, half=half)
    loaded = [
        diffusers.AutoencoderKL.from_pretrained(tmp_path, local_files_only=True),
        diffusers.AutoencoderKL.from_single_file(
            str(file), config=str(tmp_path), local_files_only=True
        ),
        scalefp.load_instance(file).network,  # type: ignore[union-attr]
    ]
    with torch.no_grad():
        expected = folded.decode(LATENTS).sample
        for vae in loaded:
            assert vae.dtype == torch.float32
            found = vae.eval().decode(LATENTS).sample
            torch.testing.assert_close(found, expected, atol=1e-2 if half else 1e-5, rtol=1e-5)
    lower = diffusers.AutoencoderKL.from_pretrained(tmp_path, torch_dtype=torch.float16)
    assert all(value.dtype == torch.float16 for value in lower.state_dict().values())


def test_other_runtimes_decode_latents_of_any_size(tmp_path: Path) -> None:
    """Though the class asks whether there are 64 or more of them."""
    vae = folded_kl()
    torch.save(vae.state_dict(), tmp_path / "vae.pt")
    chosen = {"_target_": "diffusers.AutoencoderKL", "weights": str(tmp_path / "vae.pt"), **KL}
    origin = {
        "generator": chosen,
        "inputs": {"_target_": ENCODED, "encoder": chosen, "method": "encode"},
        "modulation": {"method": "decode", "range": [-1, 1]},
    }
    instance = PretrainedInstance(vae, origin, 16)
    instance.export(tmp_path / "a.pt2", format="pt2")
    exported = torch.export.load(tmp_path / "a.pt2").module()
    for shape in ((1, 4, 8, 8), (3, 4, 5, 11)):
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            torch.testing.assert_close(exported(latents), instance(latents), atol=1e-5, rtol=1e-5)
