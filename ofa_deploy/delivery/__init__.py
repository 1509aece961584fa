"""Closed loops: whatever measures what a search delivered and searches again."""
