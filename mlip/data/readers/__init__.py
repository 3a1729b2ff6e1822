"""One reader a file format; each yields frames."""
