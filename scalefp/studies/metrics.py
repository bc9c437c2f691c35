"""What the figures of a table are called in a plot, and what they mean."""

# Behind unseen_ or trained_, or alone -> title of a plot, and what it is.
MEANINGS = {
    "n_active": ("key bits switched on", "key bits that the curriculum has come to"),
    "bit_accuracy": ("bit accuracy", "share of the key bits that are read rightly"),
    "evidence": (
        "evidence in bits",
        "bits of evidence that one image carries; 39.9 name one of 10^6 issued keys at fpr 1e-6",
    ),
    "attributed": (
        "images attributed",
        "share of single images whose key is named among 10^6 issued ones at fpr 1e-6",
    ),
    "psnr": (
        "PSNR in dB",
        "between pictures of one latent under two keys, in dB: more means better hidden",
    ),
    "ssim": ("SSIM", "likeness of pictures of one latent under two keys, at most 1"),
    "feature_distance": (
        "feature distance",
        "between made pictures and the data, in the features of a network; not FID",
    ),
}
# Of which keys, if a name begins like that -> in a plot, and in words.
KEYS = {
    "unseen_": ("keys never seen", "keys that the training never saw, 8-bit files"),
    "trained_": ("keys of the training", "keys that the training knew, 8-bit files"),
}


def parts(metric: str) -> tuple[str, str]:
    """The beginning of a name that says of which keys it is, perhaps "", and the rest."""
    for prefix in KEYS:
        if metric.startswith(prefix):
            return prefix, metric.removeprefix(prefix)
    return "", metric


def meaning(metric: str) -> str | None:
    """What a metric is, in words; None if nothing is known of it."""
    prefix, name = parts(metric)
    if name not in MEANINGS:
        return None
    words = MEANINGS[name][1]
    return f"{words} ({KEYS[prefix][1]})" if prefix else words


def title(metric: str) -> str:
    """What a plot of a metric is called, whichever keys it is of."""
    name = parts(metric)[1]
    return MEANINGS[name][0] if name in MEANINGS else name


def of_keys(metric: str) -> str:
    """Of which keys a metric is, for the legend of a plot; "" if its name does not say."""
    prefix = parts(metric)[0]
    return KEYS[prefix][0] if prefix else ""
