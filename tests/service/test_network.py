"""Requests that wait together are decoded together, and each gets its own reading."""

from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from unittest import mock

import numpy as np
import pytest
import torch

from scalefp.artificial.marker import Marker
from scalefp.attribution.evidence import Reading
from scalefp.release.model import Model
from scalefp.service.network import BATCH, Network


@pytest.fixture
def network(model: Model) -> Iterator[Network]:
    network = Network(model)
    yield network
    network.close()


def pixels(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)


def held_up(network: Network, sizes: list[int]) -> tuple[list[int], list[Reading]]:
    """Jobs of these sizes, submitted while the network is busy with another; sizes of batches."""
    batches: list[int] = []
    jobs: list[Future[Reading]] = []
    decode = network.model.decode

    def watched(images: torch.Tensor) -> Reading:
        if not batches:
            jobs.extend(network.submit(pixels(seed, size)) for seed, size in enumerate(sizes))
        batches.append(len(images))
        return decode(images)

    with mock.patch.object(network.model, "decode", watched):
        network.submit(pixels(99, 1)).result(timeout=60)
        readings = [job.result(timeout=60) for job in jobs]
    return batches, readings


def test_what_waits_is_decoded_in_one_batch(network: Network) -> None:
    sizes = [1, 3, 2]
    batches, readings = held_up(network, sizes)
    assert batches == [1, 6]
    for seed, (size, reading) in enumerate(zip(sizes, readings, strict=True)):
        alone = network.model.decode(torch.from_numpy(pixels(seed, size)))
        assert len(reading) == size and reading.model_digest == network.model.digest
        assert np.allclose(reading.logits, alone.logits, rtol=1e-4, atol=1e-5)


def test_a_marker_reads_as_well(marker: Marker) -> None:
    network = Network(marker)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    reading = network.submit(images).result(timeout=60)
    network.close()
    assert reading.model_digest == marker.digest
    assert np.array_equal(reading.logits, marker.decode(torch.from_numpy(images)).logits)


def test_batches_are_bounded(network: Network) -> None:
    batches, readings = held_up(network, [BATCH - 1, 2, 5])
    assert batches == [1, BATCH + 1, 5]
    assert [len(reading) for reading in readings] == [BATCH - 1, 2, 5]


def test_a_failure_reaches_who_waits_and_nobody_else(network: Network) -> None:
    with (
        mock.patch.object(network.model, "decode", side_effect=ValueError("damaged")),
        pytest.raises(ValueError, match="damaged"),
    ):
        network.submit(pixels(0, 1)).result(timeout=60)
    assert len(network.submit(pixels(0, 2)).result(timeout=60)) == 2


def test_who_has_gone_is_skipped(network: Network) -> None:
    batches: list[int] = []
    jobs: list[Future[Reading]] = []
    decode = network.model.decode

    def watched(images: torch.Tensor) -> Reading:
        if not batches:  # these wait until this batch is done
            jobs.extend(network.submit(pixels(seed, size)) for seed, size in enumerate((4, 1)))
            assert jobs[0].cancel()
        batches.append(len(images))
        return decode(images)

    with mock.patch.object(network.model, "decode", watched):
        network.submit(pixels(99, 1)).result(timeout=60)
        (reading,) = [job.result(timeout=60) for job in jobs[1:]]
    assert batches == [1, 1]  # nothing of the four images
    alone = network.model.decode(torch.from_numpy(pixels(1, 1)))
    np.testing.assert_allclose(reading.logits, alone.logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(CancelledError):
        jobs[0].result(timeout=0)


def test_closing_finishes_what_was_submitted(model: Model) -> None:
    network = Network(model)
    jobs = [network.submit(pixels(seed, 1)) for seed in range(3)]
    network.close()
    assert all(len(job.result(timeout=0)) == 1 for job in jobs)
