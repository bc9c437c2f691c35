"""What a training step is drawn from."""

import dataclasses

import torch

from scalefp.config import ModelConfig, TrainConfig
from scalefp.training.batch import draw_bits, split


def test_parts_keep_pairs_and_groups():
    parts = split(64, 2)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(64))
    for rows in parts:
        assert torch.equal(rows[0::2] + 1, rows[1::2]) and (rows[0::2] % 2 == 0).all()
        groups = rows.view(4, -1)  # of the discriminator, within the part
        assert (groups % 16 == groups[0] % 16).all()
    (all_rows,) = split(6, 1)
    assert torch.arange(6)[all_rows].tolist() == list(range(6))


def test_a_training_on_some_keys_draws_no_others_and_all_of_them_in_time():
    config = TrainConfig(model=ModelConfig(resolution=16, n_bits=64), training_keys=3)

    def drawn(config: TrainConfig, seed: int) -> set[bytes]:
        source = torch.Generator().manual_seed(seed)
        return {row.numpy().tobytes() for row in draw_bits(config, 200, source)}

    assert len(drawn(config, 0)) == 3
    assert drawn(config, 0) == drawn(config, 1)  # whatever the step draws, the keys are the seed's
    other = dataclasses.replace(config, seed=config.seed + 1)
    assert len(drawn(other, 0)) == 3 and not drawn(other, 0) & drawn(config, 0)
    unlimited = dataclasses.replace(config, training_keys=None)
    assert len(drawn(unlimited, 0)) == 200
