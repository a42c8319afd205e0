"""Trains a recogniser on packs.

`trainer.train` is the loop; `data/` delivers batches from packs, `losses/` holds margins, heads and PartialFC,
`distributed/` the collectives. May import `models`, `packs` and `imaging`, and never the workspace: it works on a
machine that has only the pack.
"""
