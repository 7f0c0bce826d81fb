"""Why training runs away, and what keeps it from doing so: see :mod:`benchmarks.bench_divergence`."""
