"""What is done, and why the rest is not."""
