"""One page for people: ask, facts, ingest, drift, adapters, re-alignment. Refreshed by htmx."""
