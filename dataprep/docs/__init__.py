"""Pages that `dataprep help TOPIC` shows."""
