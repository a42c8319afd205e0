"""Faces drawn by rule, so that anyone can run everything: no download, no licence, nobody's photo."""
