"""What a GPU machine is asked: see `python -m benchmarks.gpu --help`."""
