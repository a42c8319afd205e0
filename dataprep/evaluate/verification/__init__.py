"""Pairs of faces: same person or not. `scoring.score_model` and `score_features` are the face."""
