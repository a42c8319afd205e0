"""What can be done with a pack of anybody: verify, repair, merge, convert, describe, or make one of a list."""
