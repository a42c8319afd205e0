"""Scoring models; needs only a model and a verification set."""
