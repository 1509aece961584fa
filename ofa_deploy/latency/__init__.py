"""How fast networks run: runtimes, timing, tables."""
