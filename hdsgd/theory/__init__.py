"""Closed theory: Hermite tensors, leaps, exponents and boundaries, prefactors, and what follows for one problem.

`hermite` and `leaps` are theory §6, `signals` what pulls the rows at initialisation, `rules` and `phases` §4 and §5,
`prefactors` the numbers at finite d, `predictions` all of it for one problem.  May import `hdsgd.problem` and
`hdsgd.moments`.

To add a row to the table of theory §5: a record in `rules`.
"""
