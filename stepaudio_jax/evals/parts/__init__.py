"""What benchmarks share; files in here are no benchmarks."""
