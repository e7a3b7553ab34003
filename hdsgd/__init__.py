"""hdsgd: the laboratory for high-dimensional online SGD."""
