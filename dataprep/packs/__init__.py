"""Tools on whole packs, ours and other people's; they need no workspace."""
