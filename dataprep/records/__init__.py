"""Packed formats of the field: how bytes are laid out, nothing about what they show."""
