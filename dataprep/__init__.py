"""dataprep: build face recognition datasets from URL lists or photos, then train and evaluate on them."""

__version__ = "0.1.0"
