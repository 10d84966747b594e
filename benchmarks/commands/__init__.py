"""Commands of `zoo` by topic. Nothing heavy is imported at module level."""
