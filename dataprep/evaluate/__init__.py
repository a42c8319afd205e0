"""Scores models by the protocols of the field.

`verification/` scores pairs, `identification/` templates and galleries (IJB, MegaFace); `metrics` and `confidence` are what
both count with, `results` reads and writes result.json. May import `embeddings`, `models`, `packs` and `imaging`, and never
the workspace.
"""
