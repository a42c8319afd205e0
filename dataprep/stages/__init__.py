"""One file per step of the build: its parameters and its stage.

`base` says what a stage is, `order` in which order they build on each other. May import the rooms that do the work
(`download`, `detection`, `imaging`, `packs`) and the workspace.
"""
