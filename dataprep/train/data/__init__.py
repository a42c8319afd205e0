"""From packs to batches: the dataset, worker processes, decoding, augmentation and samplers.

The face is `dataset.open_packs` and `loader.batches`.
"""
