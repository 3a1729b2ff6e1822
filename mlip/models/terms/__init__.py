"""Terms add energy without features."""
