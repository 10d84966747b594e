"""A variant and a data set for vae-zoo."""
