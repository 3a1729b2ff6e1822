"""Contract suites that any potential can be put through."""
