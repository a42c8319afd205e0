"""One file per step of the build: its parameters and its stage."""
