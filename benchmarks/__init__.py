"""What is fast, and by how much: each module runs as ``python -m benchmarks.NAME --help``."""
