"""What is learnt and how, as data: targets, students, losses, constraints, protocols, activations, starts, scalings.

Holds frozen, validated, serialisable values, the arrays in which kernels read them, and the kernels that read nothing
else (`_coefficient_kernels`); nothing here computes a trajectory.  May import the foundation (`hdsgd.errors` ...
`hdsgd.parallel`, `hdsgd._compile`) only; every other package may import it.

To add: a loss, a record in `losses`; a constraint, a record in `constraints`; a function of one variable, a file in
`activations`; a training protocol, a record in `protocols`.
"""
