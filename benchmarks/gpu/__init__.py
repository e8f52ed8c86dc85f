"""What is run on a GPU machine: see `python -m benchmarks.gpu --help`."""
