"""One self-contained HTML page about the results of a search."""
