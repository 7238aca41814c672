"""Base models that are kept as GGUF: which there are, where they lie, and their conversion into a cache."""
