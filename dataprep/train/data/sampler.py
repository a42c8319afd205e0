"""Batches of P identities with K images each, for losses that compare images with each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError

IntArray = npt.NDArray[np.int64]


def pk_order(labels: IntArray, *, identities: int, images: int, seed: int, epoch: int) -> IntArray:
    """The positions of an epoch, batch after batch: each `identities` different ones of `images` images in a row.

    A function of the arguments only. An identity's images are dealt into groups, the last filled from the first; where it
    has fewer than `images`, they repeat. Groups that fill no batch of different identities wait for another epoch.
    Raises RecordError where an identity has a single image, or where there are fewer than `identities`.
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
    """Raises RecordError unless every identity has two images, and there are at least `identities`."""
    known, counts = np.unique(labels, return_counts=True)
    single = known[counts == 1]
    if len(single):
        raise RecordError(
            f"{len(single)} of {len(known)} identities have one image only (label {single[0]} for one), and triplets "
            "need two: drop them with `dataprep lst --min-images 2` and pack again"
        )
    if len(known) < identities:
        raise RecordError(
            f"a batch takes {identities} identities and there are {len(known)}: lower --identities-per-batch"
        )
