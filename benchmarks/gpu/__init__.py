"""What is measured on a GPU, one file per subject; ``benchmarks/bench_gpu.py`` runs them."""
