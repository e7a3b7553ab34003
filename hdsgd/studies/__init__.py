"""Studies: many independent cells with one plan, run on threads or Dask, kept as they are done, then put together.

May import everything up to `hdsgd.analysis`; knows no study in particular.  A new kind of study is a subclass of
`hdsgd.studies.study.Study` and a row in `hdsgd.studies.kinds`; its cells, the runner, the store, ``hdsgd status`` and
``hdsgd export`` follow.
"""
