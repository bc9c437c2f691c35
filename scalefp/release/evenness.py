"""How a reading shows that it was made in the right place, whatever it says.

Read in the right place, the logits of all bits are about equally far from zero; anywhere else they
scatter about zero like noise. How even they are tells the two apart, whatever their scale. No key
is looked at, so an innocent key agrees with the most even of many readings by pure chance, as it
does with any (see scalefp/attribution/evidence.py).
"""

import math

from torch import Tensor

# Of evenness above that of noise, in its standard deviations: a reading as even as this is believed
# without looking further.
SURE = 5.4


def evenness(logits: Tensor) -> Tensor:
    """How even the sizes of logits [..., n] are: (mean |l|)^2 / mean l^2.

    1 where all are equally far from 0, 2 / pi = 0.64 on average where they are Gaussian noise
    (Geary's ratio, squared; Geary 1935).
    """
    return logits.abs().mean(dim=-1).square() / logits.square().mean(dim=-1).clamp_min(1e-20)


def above_noise(logits: Tensor) -> Tensor:
    """Evenness of logits [..., n] in standard deviations of that of n Gaussian numbers.

    From Geary's ratio w of those: mean sqrt(2 / pi), variance (1 - 3 / pi) / n; squared.
    """
    n = logits.shape[-1]
    deviation = 2 * math.sqrt(2 / math.pi) * math.sqrt((1 - 3 / math.pi) / n)
    return (evenness(logits) - 2 / math.pi) / deviation
