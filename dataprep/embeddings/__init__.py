"""Embeds faces, keeps the features in files and searches them.

`embedder` runs a model over images, `extract` writes features, `files` reads and writes every format of them, `search` finds
nearest neighbours exactly. May import `models`, `packs` and `imaging`.
"""
