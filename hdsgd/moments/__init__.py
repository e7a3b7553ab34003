"""Population moments: what the gradient and the loss of one sample are on average, given the overlaps (theory §3).

`population` is the interface and `tables` chooses the kind of table of a problem.  `polynomial`, `links` and
`quadrature` build them, and each kind has its kernels in a file beside it; `_dispatch_kernels` chooses among those when
a kernel that asks for moments is compiled.  May import `hdsgd.problem`.

To add closed moments for another kind of problem: a type in `_table_types`, a file that builds it, kernels of `moments`
and `risk` for it, and a line in `tables` and in `_dispatch_kernels`.
"""
