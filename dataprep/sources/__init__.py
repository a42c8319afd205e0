"""Published lists, folders and drawings, turned into samples."""
