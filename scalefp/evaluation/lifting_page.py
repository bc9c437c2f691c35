"""What lifting.py found, as tables and as a part of an evaluation's page."""

from collections.abc import Mapping, Sequence
from typing import Any

from scalefp.evaluation.cells import share
from scalefp.experiment import markdown_table


def _named(figures: Mapping[str, Any]) -> list[str]:
    """Bits read, and the shares of sources named among a million keys, by number of images."""
    shares = [
        share(pool["soft"]["1000000"]) if "1000000" in pool["soft"] else ""
        for pool in figures["attributed"].values()
    ]
    return [f"{figures['mean']:.3f}", " / ".join(shares)]


def lifting_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each estimate, strength and kind of pictures."""
    cells = []
    for row in rows:
        known = f"{row['known_images']:,}{' and a copy' if row['own_copy'] else ''}"
        own = _named(row["own"]) if "own" in row else ["", ""]
        about = [row["onto"], row["estimator"], known, f"{row['strength']:g}"]
        cells.append([*about, *_named(row), *own, f"{row['psnr']:.1f}"])
    head = ["pictures", "estimate", "images known", "times", "victim's bits", "victim named, %"]
    head += ["attacker's bits", "attacker named, %", "PSNR, dB"]
    return markdown_table(head, cells)


def blends_table(blends: Sequence[Mapping[str, Any]]) -> str:
    """What is read of each of two instances whose images were blended."""
    head, rows = ["blend"], [[row["blend"]] for row in blends]
    for which in ("first", "second"):
        head += [f"{which}'s bits", f"{which} named, %"]
        for cells, row in zip(rows, blends, strict=True):
            cells += _named(row[which])
    if blends and "psnr" in blends[0]["first"]:  # earlier results lack it
        head.append("PSNR to the first's / second's, dB")
        for cells, row in zip(rows, blends, strict=True):
            cells.append(" / ".join(f"{row[which]['psnr']:.1f}" for which in ("first", "second")))
    return markdown_table(head, rows)


def picked_table(picked: Sequence[Mapping[str, float]]) -> str:
    """P-values of pictures that were picked for a victim, and of others."""
    rows = [[f"10^{row['picked']:.0f}", f"10^{row['random']:.0f}"] for row in picked]
    return markdown_table(["picked", "random"], rows)


def asking_table(lifting: Mapping[str, Any]) -> str:
    """What an attacker reaches who asks the service about a picture that he changes."""
    rows = []
    for what, name in (("every p-value told", "asking"), ("up to 1e-3 told", "asking_service")):
        for row in lifting[name]:
            p_values = [f"10^{row[when]:.0f}" for when in ("before", "log10_p")]
            rows.append([what, *p_values, f"{row['accuracy']:.3f}", f"{row['psnr']:.1f}"])
    return markdown_table(["service", "p-value before", "after", "victim's bits", "PSNR, dB"], rows)


def _redrawing(lifting: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """What the rows mean whose estimate is called so; nothing if there are none."""
    if lifting.get("redrawn_psnr") is None:
        return []
    count = min(config["redrawn"], config["pictures"])
    return [
        "Redrawn: he looks for the latent whose picture by his own copy comes closest to one image "
        f"of hers ({config['redrawing_steps']} steps, {lifting['redrawn_psnr']:.1f} dB) and takes "
        f"the difference for the estimate; {count} of each kind of pictures, each with another "
        "image of hers. What is taken off hers is the difference of that very picture: once, it is "
        "as his copy draws it."
    ]


def checks_table(checks: Sequence[Mapping[str, Any]]) -> str:
    """What lift checks say of each kind of pictures."""
    rows = [
        [
            row["pictures"],
            f"{row['named']} of {row['images']}",
            f"{row['passed']} of {row['named']}" if row["named"] else "",
            "" if row["agree"] is None else f"{row['agree']:.1f} of {row['bits']}",
            f"{row['psnr']:.1f}",
        ]
        for row in checks
    ]
    head = ["pictures", "name the victim", "of these passed", "bound bits, half by chance"]
    return markdown_table([*head, "PSNR, dB"], rows)


def _checking(lifting: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Lift checks, if there are any."""
    if not lifting.get("checks"):
        return []
    return [
        "Lift checks: pictures that name the victim are drawn again with the victim's copy, and "
        "the bits that are bound to its pictures are compared with what that takes. What another "
        "lays on his is what is left of one image of hers as his copy draws it "
        f"({config['redrawing_steps']} steps). A check passes at the fpr of this evaluation.",
        checks_table(lifting["checks"]),
    ]


def _others(results: Mapping[str, Any]) -> str:
    """Where pictures of another kind than the data come from, if any are there."""
    rows = results["lifting"]["rows"]
    if not any(row["onto"] == "unrelated" for row in rows):
        return ""
    return f" unrelated: pictures of `{results['config']['unrelated'][0]}`;"


def lifting_page(results: Mapping[str, Any]) -> list[str]:
    """Paragraphs and tables of an evaluation's results; none if no attack was measured."""
    lifting, config = results.get("lifting"), results["config"].get("lifting")
    if lifting is None or config is None:
        return []
    pools = " / ".join(map(str, results["config"]["pools"]))
    return [
        "## Lifting, washing, blending, asking",
        f"{config['victims']} victims; an attacker has images of the victim's instance, perhaps an "
        "instance of his own, and no decoder, release or key. He lays his estimate of the victim's "
        "fingerprint, times a strength, on pictures of the data and on his own, and takes it off "
        f"hers;{_others(results)} {config['pictures']} pictures of each kind for each victim. "
        f"Named: share of single images and of several together ({pools}), soft form, among 10^6 "
        "issued keys.",
        *_redrawing(lifting, config),
        lifting_table(lifting["rows"]),
        *_checking(lifting, config),
        "Images of two instances blended:",
        blends_table(lifting["blends"]),
        "Unrelated pictures chosen because they lean to the victim, judged as one source (which "
        "the test does not allow), and as many at random; p-values among 10^6 keys:",
        picked_table(lifting["picked"]),
        f"{config['queries']:,} questions to the service about one picture, on which the "
        "estimate was laid first and which is changed a little each time:",
        asking_table(lifting),
    ]
