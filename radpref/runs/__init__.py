"""A run: its folder, its tables, and the one runner of all stages."""
