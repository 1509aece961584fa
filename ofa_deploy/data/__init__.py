"""Images: read, split, packed."""
