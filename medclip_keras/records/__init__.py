"""Records: their one schema, their shards and manifest, and batches made of them."""
