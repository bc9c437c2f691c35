"""What a training says when it ends: what it reached, and what to type next."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from scalefp.files import counted
from scalefp.release.readable import shortfall


def ending(
    figures: Mapping[str, float],
    n_bits: int,
    total_images: int,
    release: Path,
    *,
    adopted: bool = False,
) -> str:
    """A few lines for whoever started the training.

    Args:
        figures: the last line of its log, ``evidence`` and ``bit_accuracy`` as its release has
            them; only a generator's has ``n_active`` and ``psnr`` between keys.
        n_bits: length of its keys.
        total_images: that it was trained on.
        release: what it wrote.
        adopted: whether others trained the generator, to whose pictures ``psnr`` is.
    """
    file = shlex.quote(str(release))
    generates = "n_active" in figures
    if "evidence" not in figures:
        return f"Trained without keys, as a baseline.\nNext: scalefp evaluate checkpoint={file}"
    active = int(figures.get("n_active", n_bits))
    what = "two keys apart by" if generates else "marks at"
    if adopted:
        what = "the original's pictures kept to"
    lines = [
        f"Reached: {active} of {n_bits} key bits switched on, {figures['bit_accuracy']:.1%} of all "
        f"bits read right, {counted(figures['evidence'], 'bit')} of evidence from one image, "
        f"{what} {figures['psnr']:.1f} dB."
    ]
    why = shortfall({"active_bits": active, "evidence": figures["evidence"]}, n_bits)
    if why is not None:
        fewer = max(8, n_bits // 2)
        instead = f", or train fewer bits under another name (model.n_bits={fewer})"
        lines.append(
            f"That is not enough, its images would be attributed to nobody: {why}. Go on by the "
            f"same command with schedule.total_images={2 * total_images}"
            f"{instead if fewer < n_bits else ''}."
        )
    elif generates:
        lines += [
            f"Next: scalefp registry issue recipient-a --registry keys.db --model {file}",
            f"      scalefp instantiate --model {file} --registry keys.db --holder recipient-a "
            "--out recipient-a.safetensors",
            f"      scalefp evaluate checkpoint={file}",
        ]
    else:
        lines += [
            f"Next: scalefp registry issue photos --registry keys.db --model {file}",
            f"      scalefp artificial embed --model {file} --data FOLDER --registry keys.db "
            "--holder photos --out marked",
        ]
    return "\n".join(lines)
