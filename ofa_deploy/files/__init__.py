"""Files: artifacts with their descriptions, atomic writes, journals of long work, downloads."""
