"""Running models: one `Backend` interface, one module per inference library."""
