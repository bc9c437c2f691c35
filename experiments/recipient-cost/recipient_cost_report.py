"""The cost of new recipients as tables and as a plot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from scalefp.experiment import Plots, markdown_table, new_figure, wilson
from scalefp.files import counted


def tuned_seconds(results: Mapping[str, Any]) -> list[float]:
    """All steps of a fine-tuning, as many as published, for each key."""
    return [curve[-1]["seconds"] for curve in results["tuning"]["curves"]]


def instance_seconds(results: Mapping[str, Any]) -> float:
    """One instance, from the row with the most of them."""
    row = results["instances"][-1]
    return float(row["making_s"] / row["count"])


def retraining_seconds(results: Mapping[str, Any]) -> float:
    return float(results["retraining"]["images"] / results["retraining"]["images_per_second"])


def duration(seconds: float) -> str:
    """In the unit that a reader would choose."""
    units = [(86400 * 365.25, "years"), (86400, "days"), (3600, "hours"), (60, "min"), (1, "s")]
    for size, name in units:
        if seconds >= 2 * size:
            return f"{seconds / size:,.3g} {name}"
    return f"{1e3 * seconds:.3g} ms"


def _instances(results: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{row['count']:,}",
            duration(row["making_s"]),
            f"{1e3 * row['making_s'] / row['count']:.2f}",
            f"{1e3 * row['making_and_writing_s'] / row['written']:.1f}",
            f"{row['bytes_in_memory']:,}",
            f"{row['bytes_in_file']:,}",
            duration(row["count"] * statistics.fmean(tuned_seconds(results))),
            duration(row["count"] * retraining_seconds(results)),
        ]
        for row in results["instances"]
    ]
    columns = ["recipients", "instances made in", "ms each", "ms each, written"]
    columns += ["bytes each in memory", "bytes each in a file"]
    columns += ["fine-tuning would take", "retraining would take"]
    return markdown_table(columns, rows, right=range(8))


def _read_back(back: Mapping[str, Any]) -> str:
    shares = []
    for form in ("single", "together"):
        right, wrong, nobody = back[form]
        trials = back["read"] * (back["images"] if form == "single" else 1)
        low, high = wilson(right, trials)
        cells = [f"{right:,} of {trials:,}", f"{low:.3f} to {high:.3f}", str(wrong), str(nobody)]
        shares.append([form, *cells])
    names = ["images", "right holder named", "95%", "another named", "nobody"]
    return markdown_table(names, shares, right=range(1, 5))


def _tuning(results: Mapping[str, Any]) -> str:
    curves = results["tuning"]["curves"]
    rows = [
        [
            str(rows[0]["step"]),
            f"{statistics.fmean(row['seconds'] for row in rows):.1f}",
            f"{statistics.fmean(row['bit_accuracy'] for row in rows):.4f}",
            f"{min(row['bit_accuracy'] for row in rows):.4f}",
            f"{statistics.fmean(row['psnr'] for row in rows):.1f}",
        ]
        for rows in zip(*curves, strict=True)
    ]
    own = results["tuning"]["instances"]
    bits = [row["bit_accuracy"] for row in own]
    psnr = statistics.fmean(row["psnr"] for row in own)
    seconds = f"{instance_seconds(results):.4f}"
    rows.append(
        ["an instance", seconds, f"{statistics.fmean(bits):.4f}", f"{min(bits):.4f}", f"{psnr:.1f}"]
    )
    head = ["steps", "s", "bit accuracy, mean of the keys", "worst key", "PSNR to no key, dB"]
    return markdown_table(head, rows, right=range(5))


def report(results: Mapping[str, Any]) -> str:
    """All figures as one page."""
    back, training = results["read_back"], results["retraining"]
    seconds = tuned_seconds(results)
    return (
        f"{results['date']}, {results['hardware']}, release `{results['model']}` "
        f"({results['release'][:16]}), seed {results['seed']}; times are processor time of one "
        f"thread.\n\n{_instances(results)}\n\n"
        f"Written: at most {results['instances'][-1]['written']} files of each row. What "
        "fine-tuning and retraining would take is that of one recipient, times their number.\n\n"
        f"{back['issued']:,} keys derived and issued in one SQLite registry in "
        f"{back['issuing_s']:.2f} s ({back['bytes_in_registry']:,} bytes); {back['read']} of them "
        f"instantiated, {back['images']} PNG files each, attributed at fpr 1e-6:\n\n"
        f"{_read_back(back)}\n\n"
        f"Fine-tuning {results['tuning']['weights']:,} weights for one key at a time, "
        f"{counted(len(seconds), 'key')}; single 8-bit images of other latents:"
        f"\n\n{_tuning(results)}\n\n"
        f"All steps: {statistics.fmean(seconds):.1f} s a key ({min(seconds):.1f} to "
        f"{max(seconds):.1f}).\n\n"
        f"Retraining: {training['images']:,} images at {training['images_per_second']:.0f} "
        f"images/s, by `{training['command']}` in {training['precision']}: "
        f"{retraining_seconds(results) / 3600:.1f} hours each, by the clock (a few steps were run, "
        "not all).\n"
    )


def plots(results: Mapping[str, Any]) -> Plots:
    """Seconds over recipients for the three ways, and how a fine-tuning goes."""
    figure = new_figure(11, 4)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    rows = results["instances"]
    count = np.array([row["count"] for row in rows])
    ways = {
        "an instance": ("tab:green", np.array([row["making_s"] for row in rows])),
        "fine-tuning for each key": (
            "tab:orange",
            count * statistics.fmean(tuned_seconds(results)),
        ),
        "retraining for each key": ("tab:red", count * retraining_seconds(results)),
    }
    for name, (colour, y) in ways.items():
        measured = name == "an instance"
        left.plot(count, y, "o-" if measured else "--", color=colour)
        left.plot(count[:1], y[:1], "o", color=colour)
        left.annotate(
            f"{name}: {duration(y[-1])}", (count[-1], y[-1]), xytext=(-6, 9), ha="right",
            textcoords="offset points", color=colour, fontsize="small",
        )  # fmt: skip
    for seconds, name in ((60, "a minute"), (3600, "an hour"), (86400, "a day"), (3.156e7, "year")):
        left.axhline(seconds, color="grey", lw=0.5, ls=":")
        left.text(1, seconds, name, fontsize="x-small", color="grey", va="bottom")
    left.set(xscale="log", yscale="log", xlabel="recipients", ylabel="seconds, one thread")
    left.set_ylim(top=left.get_ylim()[1] * 20)
    for curve in results["tuning"]["curves"]:
        seconds_of = [row["seconds"] for row in curve]
        right.plot(seconds_of, [row["psnr"] for row in curve], "-", color="tab:orange", alpha=0.7)
    own = statistics.fmean(row["psnr"] for row in results["tuning"]["instances"])
    right.axhline(own, color="tab:green", ls="--", label="an instance")
    right.plot([], [], color="tab:orange", label="fine-tuned for one key")
    right.set(xlabel="seconds of fine-tuning", ylabel="PSNR to the image without a key, dB")
    right.legend(fontsize="small", loc="lower right")
    return {"cost.png": figure}
