"""experiments/false-attribution: keys that follow a rule."""

import numpy as np

from codebooks import hadamard, structured_keys


def test_rows_of_hadamards_matrix_differ_in_half_of_the_columns() -> None:
    assert hadamard(0).tolist() == [[1]]
    assert np.array_equal(hadamard(5) @ hadamard(5).T, 32 * np.eye(32))


def test_rules_make_the_keys_that_they_are_named_after() -> None:
    logits = np.random.default_rng(0).normal(0.1, 1, (50, 16))
    books = structured_keys(logits, np.random.default_rng(1))
    assert books["numbered 0 to 9,999"][5].tolist() == [0] * 13 + [1, 0, 1]
    assert books["one byte repeated"][3].tolist() == [1, 1, 0, 0, 0, 0, 0, 0] * 2
    mean = books["signs of the decoder's mean logits"]
    assert mean.tolist() == [(logits.mean(axis=0) > 0).astype(int).tolist()]
    assert all(keys.dtype == np.uint8 and keys.max() <= 1 for keys in books.values())
