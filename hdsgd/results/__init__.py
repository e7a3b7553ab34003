"""Datasets: the registry of variables (`schema`), files (`files`), and what each kind of result can do.

May import `hdsgd.problem`; knows no study.
"""
