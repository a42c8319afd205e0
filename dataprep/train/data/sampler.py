"""Batches of P identities with K images each, for losses that compare the images of a batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError

IntArray = npt.NDArray[np.int64]


def pk_order(labels: IntArray, *, identities: int, images: int, seed: int, epoch: int) -> IntArray:
    """The positions of an epoch, batch after batch. A batch has `identities` distinct identities, each with `images` images.

    The order depends on the arguments only. An identity's images are split into groups of `images`; the last group is
    filled up with the identity's first images, which may repeat. Groups that do not fill a batch of distinct identities
    are left out of this epoch. Raises RecordError if an identity has a single image, or if there are too few identities.
    """
    check_identities(labels, identities)
    generator = np.random.default_rng((seed, epoch))
    order = np.lexsort((generator.random(len(labels)), labels))  # shuffled within each identity
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    batches = []
    for turn in range(-(-int(counts.max()) // images)):
        left = np.flatnonzero(counts > turn * images)
        dealt = generator.permutation(left)[: len(left) // identities * identities]
        within = (turn * images + np.arange(images)) % counts[dealt, None]
        batches.append(order[starts[dealt, None] + within].reshape(-1, identities * images))
    together = np.concatenate(batches)
    return together[generator.permutation(len(together))].ravel().astype(np.int64)


def check_identities(labels: IntArray, identities: int) -> None:
    """Raises RecordError unless every identity has two images and there are at least `identities` identities."""
    known, counts = np.unique(labels, return_counts=True)
    single = known[counts == 1]
    if len(single):
        raise RecordError(
            f"{len(single)} of {len(known)} identities have only one image (for example label {single[0]}), but triplets "
            "need two",
            hint="drop them with `dataprep lst --min-images 2` and pack again",
        )
    if len(known) < identities:
        raise RecordError(
            f"a batch needs {identities} identities, but there are only {len(known)}",
            hint="lower --identities-per-batch",
        )
