"""Training store: Arrow shards that are memory-mapped, and a manifest that says what they hold."""
