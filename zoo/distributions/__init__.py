"""Distributions that posteriors, priors and objectives are made of: densities in nats, draws, divergences."""
