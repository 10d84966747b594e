"""What is measured of a trained run, by topic, for `benchmarks.evaluate`; the formulae are in `benchmarks.metrics`."""
