"""Commands of hdsgd (installed as ``hdsgd_cli``)."""
