"""The report: one HTML file that needs nothing else, for phones and desktops, light and dark."""

from __future__ import annotations

from pathlib import Path
from string import Template

import scalefp
from chart import line_chart
from lifted import section
from markup import commands, drawn_image, escape, file_image, html_table, odds
from pictures import DIFFERENCE_GAIN, difference, key_strip, wrapped
from scalefp.data.images import read_image
from scalefp.files import atomic_path
from verdicts import (
    NOBODY,
    SUMMARY_HEAD,
    Decoded,
    Group,
    Results,
    Training,
    Verdict,
    bits_off,
    summary,
)

TEMPLATE = Path(__file__).with_name("template.html")
MIME = {".png": "image/png", ".jpg": "image/jpeg"}


def key_html(key: scalefp.Key, other: scalefp.Key | None = None) -> str:
    """Hexadecimal digits; those that differ from ``other`` are marked."""
    pairs = zip(str(key), str(other or key), strict=True)
    digits = [mine if mine == theirs else f"<b>{mine}</b>" for mine, theirs in pairs]
    return f'<span class="hex">{"".join(digits)}</span>'


def answer_html(group: Group, verdict: Verdict) -> str:
    kind = "bad" if not group.as_expected(verdict) else "good" if verdict.named else "nobody"
    return f'<span class="{kind}">{escape(verdict.answer)}</span>'


# Sections.


def _head(results: Results) -> str:
    model, n_images = results.model, sum(len(group.each) for group in results.groups)
    right = sum(group.n_right for group in results.groups)
    verdict = (
        f'<span class="good">All {n_images} images and all {len(results.groups)} sets were '
        "answered as expected.</span>"
        if results.right
        else f'<span class="bad">Not everything came out as expected: {right} of {n_images} '
        "images were answered rightly.</span>"
    )
    rows = [[escape(cell) for cell in row] for row in summary(results.groups)]
    for row, group in zip(rows, results.groups, strict=True):
        row[1] = f'<span class="{"good" if group.right else "bad"}">{row[1]}</span>'
        row[6] = odds(group.together.p_value)
    training = f"{model.training['images']:,} images" if "images" in model.training else "unknown"
    return f"""
<h1>Whose instance made which image?</h1>
<p>One generator was trained once. {len(results.recipients)} recipients each got a copy of their
own, made from a {model.config.n_bits}-bit key without any training. Below, every image is read
from its file, and the key found in it is looked up among those issued. {verdict}</p>
{html_table(SUMMARY_HEAD, rows, "summary")}
<p class="faint">Named only if <em>chance</em> is below {odds(results.fpr)}: at most this is the
probability that any of the {len(results.recipients)} issued keys would agree so well with what was
read if none of them had a part in the images. It rests on nothing but the keys being random: each
bit of an innocent key agrees by the toss of a coin, whatever the images and the decoder are. The
table gives it for all images of a row together. Bit errors: mean of the single images, against the
closest issued key; chance alone gives about half of the bits.</p>
<p class="faint">Release <code>{escape(results.release)}</code> (digest
<code>{model.digest[:12]}</code>), {model.config.resolution} × {model.config.resolution} pixels,
trained on {training}. Took {results.seconds:.0f} s without the training at the end.</p>
"""


def _recipients(results: Results) -> str:
    rows = [
        [
            escape(one.holder),
            key_html(one.key),
            f"{one.milliseconds:.1f} ms",
            f"<code>{escape(one.file.name)}</code>, {one.file.stat().st_size / 1e6:.1f} MB",
        ]
        for one in results.recipients
    ]
    out, first = results.recipients[0].file.parent, results.recipients[0]
    return f"""
<h2>1. Three keys, three instances</h2>
<p>A key is drawn at random and recorded; folding it into the weights makes the recipient's
network, which holds neither the key nor any input for one.</p>
{html_table(["recipient", "key (secret in earnest)", "instantiated in", "file"], rows)}
{
        commands(
            f"scalefp registry issue {first.holder} --registry {out}/keys.db "
            f"--model {results.release}",
            f"scalefp instantiate --model {results.release} --registry {out}/keys.db "
            f"--holder {first.holder} --out {first.file}",
        )
    }
{_onnx(results)}"""


def _onnx(results: Results) -> str:
    if results.onnx is None:
        return "<p>ONNX was left out, because its packages are not installed.</p>"
    first, onnx = results.recipients[0], results.onnx
    kind = "good" if onnx.right else "bad"
    command = commands(
        f"scalefp instantiate --model {results.release} --registry {onnx.file.parent}/keys.db "
        f"--holder {first.holder} --format onnx --out {onnx.file}"
    )
    return f"""<p>The instance of {escape(first.holder)} is also written as ONNX. Run by ONNX
Runtime, its images differ from the instance's by
<span class="{kind}">{onnx.difference:.1e}</span> at most (pixels in [-1, 1]).</p>{command}"""


def _shared(results: Results) -> str:
    holders = [recipient.holder for recipient in results.recipients]
    heads = [*holders, *(f"{holder} − {holders[0]}, ×10" for holder in holders[1:])]
    cells = [f"<span>{escape(head)}</span>" for head in heads]
    for latent in zip(*results.shared, strict=True):
        cells += [drawn_image(image, "sample") for image in latent]
        cells += [drawn_image(difference(latent[0], other), "difference") for other in latent[1:]]
    return f"""
<h2>2. The key hides</h2>
<p>The same latents through every instance: between two recipients the PSNR is
{results.psnr:.1f} dB on average. Beside them the difference, multiplied by {DIFFERENCE_GAIN},
around grey.</p>
<div class="same" style="grid-template-columns: repeat({len(heads)}, 1fr)">{"".join(cells)}</div>
"""


def _card(group: Group, path: Path, verdict: Verdict) -> str:
    strip = drawn_image(
        wrapped(key_strip(verdict.read, verdict.errors)), bits_off(verdict.n_errors), "pixels"
    )
    return (
        f"<figure>{file_image(path, group.title)}{strip}{answer_html(group, verdict)}<br>"
        f"{bits_off(verdict.n_errors)}<br>{odds(verdict.p_value)}"
        f"{key_html(verdict.read, verdict.issued)}</figure>"
    )


def _group(group: Group, *, opened: bool) -> str:
    together = group.together
    cards = "".join(
        _card(group, path, verdict) for path, verdict in zip(group.files, group.each, strict=True)
    )
    expected = group.expected or NOBODY
    count = f"{group.n_right}&nbsp;of&nbsp;{len(group.each)}"
    count = f'<span class="{"good" if group.right else "bad"}">{count}</span>'
    single = len(group.files) == 1
    whole = "The image" if single else f"All {len(group.files)} as one source"
    singly = "" if single else f"One by one: {escape(expected)} for {count}."
    title = "The image" if single else f"The {len(group.each)} images one by one"
    return f"""
<div class="group">
<h3>{escape(group.title)}</h3>
<p class="faint">{escape(group.note)}</p>
<p>{whole}: {answer_html(group, together)},
{bits_off(together.n_errors)} of {together.read.n_bits}, {odds(together.p_value)}.
{singly}</p>
<div class="keys">
<span class="faint">issued to {escape(together.closest)}</span>{key_html(together.issued)}
<span class="wide">{drawn_image(key_strip(together.issued), "issued key", "pixels")}</span>
<span class="faint">read</span>{key_html(together.read, together.issued)}
<span class="wide">{
        drawn_image(key_strip(together.read, together.errors), "key read", "pixels")
    }</span>
</div>
<details{" open" if opened else ""}><summary>{title}</summary>
<div class="cards">{cards}</div></details>
</div>"""


def _made(results: Results) -> str:
    out, first = results.recipients[0].file.parent, results.recipients[0]
    own = [one for one in _of_generator(results) if one.expected is not None]
    sections = "".join(_group(group, opened=number < 3) for number, group in enumerate(own))
    images = f"{out}/images/{first.holder}"
    registry = f"--model {results.release} --registry {out}/keys.db"
    return f"""
<h2>3. Images lead back to the recipient</h2>
<p>Each strip shows the {results.model.config.n_bits} bits that the decoder read, light for 0 and
dark for 1, in red where they differ from the closest issued key. Under each image: who is named,
how many bits are off, the chance of so close a match, and the key read. A name says that the
fingerprint of that holder's copy is in the image, not that the holder made it: who has images of a
copy can lay its fingerprint on other pictures (<code>docs/secrets.md</code>).</p>
{
        commands(
            f"scalefp sample --instance {first.file} --out {images} --num {len(own[0].files)} "
            f"--seed {first.seed}",
            f"scalefp decode --model {results.release} {images}/*.png",
            f"scalefp attribute {registry} {images}/*.png",
            f"scalefp attribute {registry} {images}/*.png --same-source",
        )
    }
{sections}"""


def _foreign(results: Results) -> str:
    out = results.recipients[0].file.parent
    sections = "".join(
        _group(group, opened=False) for group in _of_generator(results) if group.expected is None
    )
    command = commands(
        f"scalefp attribute --model {results.release} --registry {out}/keys.db "
        f"{out}/images/never-issued/*.png"
    )
    return f"""
<h2>4. Everything else leads to nobody</h2>
<p>Half of the bits agree with any key by chance. The closest issued key is shown all the same.</p>
{command}
{sections}"""


def _of_generator(results: Results) -> list[Group]:
    """All groups but those of others' decoder, which have a section of their own."""
    others = results.decoded.groups if results.decoded is not None else []
    return [group for group in results.groups if group not in others]


def _decoded(decoded: Decoded) -> str:
    holders = [group.expected for group in decoded.groups if group.expected is not None]
    images, out = [read_image(file) for file in decoded.files], decoded.files[0].parents[2]
    heads = ["original", *holders, *(f"{holder} − original, ×10" for holder in holders)]
    cells = [f"<span>{escape(head)}</span>" for head in heads[: len(images)]]
    cells += [drawn_image(image, "decoded picture") for image in images]
    cells += ["<span></span>", *(f"<span>{escape(head)}</span>" for head in heads[len(images) :])]
    cells += ["<span></span>"]
    cells += [drawn_image(difference(images[0], other), "difference") for other in images[1:]]
    sections = "".join(_group(group, opened=True) for group in decoded.groups)
    return f"""
<h2>5. A decoder that others trained</h2>
<p>The decoder of TAEF2, which makes pictures of the latents of FLUX.2, under three keys. No network
was trained for it: a key is read by finding which latents and which key make the picture. What a
key changes follows the picture, multiplied by {DIFFERENCE_GAIN} below. The picture is computed and
belongs to nobody.</p>
<div class="same wider" style="grid-template-columns: repeat({len(images)}, 1fr)">
{"".join(cells)}</div>
{
        commands(
            f"scalefp sample --instance {out}/{holders[0]}-decoder.safetensors "
            f"--images {decoded.files[0].parent} --out seen",
            f"scalefp attribute --model {decoded.release} --registry {out}/photos.db seen",
        )
    }
{sections}"""


# The training.


def _training(training: Training, number: int) -> str:
    def curve(name: str) -> list[tuple[float, float]]:
        return [(line["images"], line[name]) for line in training.log]

    decibels = [line["psnr"] for line in training.log]
    low, high = 5 * (min(decibels) // 5), 5 * (max(decibels) // 5 + 1)
    charts = [
        line_chart("bit accuracy", curve("bit_accuracy"), 0.5, 1, "{:.0%}".format),
        line_chart("same latent, two keys: PSNR, dB", curve("psnr"), low, high, "{:g}".format),
    ]
    titles = {
        "latents": "different latents, one key",
        "keys": "columns: one latent each; rows: keys",
        "difference": "these rows less the first, ×10",
    }
    grids = "".join(
        f"<figure>{file_image(training.grids[name], title, '')}"
        f'<span class="faint">{escape(title)}</span></figure>'
        for name, title in titles.items()
        if name in training.grids
    )
    last = training.log[-1]
    return f"""
<h2>{number}. Training runs</h2>
<p>A tiny model, trained from nothing for {training.seconds:.0f} seconds: {last["images"]:,}
images, {last["images_per_second"]:.0f} a second at the end. It only shows that training works: the
bits become readable first, while good pictures and a hidden key take a longer training.</p>
{commands(f"scalefp train experiment=tiny schedule.total_images={last['images']}")}
<div class="charts">{"".join(charts)}</div>
<div class="grids">{grids}</div>"""


def render(results: Results, training: Training | None) -> str:
    """The whole page."""
    parts = [_head(results), _recipients(results), _shared(results), _made(results)]
    parts.append(_foreign(results))
    if results.decoded is not None:
        parts.append(_decoded(results.decoded))
    if results.lifted is not None:
        parts.append(section(results.lifted, len(parts), results.release))
    if training is not None:
        parts.append(_training(training, len(parts)))
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(body="\n".join(parts))


def save_report(path: Path, results: Results, training: Training | None = None) -> None:
    """Write the page, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(render(results, training), encoding="utf-8")
