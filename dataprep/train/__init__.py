"""Training on packed records; needs only the pack."""
