"""The applications that the benchmarks serve, and the releases that a deploy switches between."""
