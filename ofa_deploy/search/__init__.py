"""Search: the most accurate network within a budget."""
