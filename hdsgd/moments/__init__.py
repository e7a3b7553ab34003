"""Population moments: what the gradient and the loss of one sample are on average, given the overlaps (theory §3).

`population` is the interface, `tables` turns a problem into arrays, and each kind of table has its kernels in a file
beside it.  May import `hdsgd.problem`.

To add closed moments for another kind of problem: a table, and kernels of `moments` and `risk` for it.
"""
