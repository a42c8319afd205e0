"""Templates, galleries and distractors: IJB-B/C, MegaFace and gallery search. `benchmark` is the face."""
