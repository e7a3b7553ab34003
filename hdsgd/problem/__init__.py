"""What is learnt and how, as data: targets, students, losses, constraints, activations, starts and scalings.

Holds frozen, validated, serialisable values and the arrays in which kernels read them; nothing here computes a
trajectory.  May import the foundation (`hdsgd.errors` ... `hdsgd.parallel`) only; every other package may import it.

To add: a loss, a record in `losses`; a constraint, a record in `constraints`; a function of one variable, a file in
`activations`.
"""
