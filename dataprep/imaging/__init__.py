"""Pure functions on image bytes and pixel arrays: no paths, no manifest."""
