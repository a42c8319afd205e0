"""Packed datasets: insightface's and im2rec's RecordIO, WebDataset shards, folders of images, verification .bin files.

`io.open_pack` and `io.write_pack` are the face; `base` says what a pack reader gives. `tools/` checks, repairs, merges and
converts packs of anybody. May import `imaging` and `storage`, and never the workspace.
"""
