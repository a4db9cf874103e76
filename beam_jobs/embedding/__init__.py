"""The plan and the steps of `beam_jobs.embed_images`."""
