"""Slow, obvious NumPy versions of one step of each engine, for the same random numbers.

Nothing here uses the kernels or their tables: targets and activations are evaluated from the expressions, gradients
are summed sample by sample, norms and projections are written as in the definition of the algorithms.
"""

import numpy as np

from hdsgd.problem.constraints import CONSTRAINTS


def polynomial_part(function):
    return np.polynomial.Polynomial(function.power_coefficients())


def activation(problem, x):
    """σ(x) and σ'(x)."""
    sigma = problem.student.function
    slope = polynomial_part(sigma).deriv()(x) + sum(link.derivative(x) for link in sigma.links)
    return sigma(x[None]), slope


def error(problem, f, y):
    """The error of the loss with which a problem begins."""
    loss = problem.phases[0]
    return loss.error(f, y) if loss.error else loss.kappa * f - y


def coefficients(problem, student, teacher, xi):
    """c_j of each sample, shape (p, n), from fields (p, n), (k, n) and standard normal label noise (n,)."""
    p, n = student.shape
    c = np.empty((p, n))
    for s in range(n):
        y = float(problem.target.function(teacher[:, s])) + np.sqrt(problem.noise) * xi[s]
        values, slopes = activation(problem, student[:, s])
        f = float(np.mean(problem.student.a * values))
        c[:, s] = problem.student.a / p * slopes * error(problem, f, y)
    return c


def constrain(problem, W, gradient, lr):
    """One step of the rows W from a batch gradient."""
    constraint = CONSTRAINTS[problem.constraint]
    new = np.empty_like(W)
    for j, (w, g) in enumerate(zip(W, gradient, strict=True)):
        if constraint.tangential:
            g = g - (g @ w) / (w @ w) * w
        w = w - lr * g
        new[j] = w / np.sqrt(w @ w) if constraint.normalised else w
    return new


def direct_step(problem, lr, W, teacher, z, xi):
    """One step from inputs z (n, d)."""
    c = coefficients(problem, W @ z.T, teacher @ z.T, xi)
    gradient = np.zeros_like(W)
    for s in range(len(z)):
        gradient += np.outer(c[:, s], z[s])
    return constrain(problem, W, gradient / len(z), lr)


def reduced_step(problem, lr, X, u, xi, A):
    """One step of the chain from in-span inputs u (k + p, n) and a Bartlett factor A (q, q).

    Returns the overlaps (M, Q) of the new rows, found in the basis (span | outside).
    """
    p, k = problem.p, problem.k
    n = u.shape[1]
    teacher = np.hstack([problem.target.gram_root, np.zeros((k, p))])
    c = coefficients(problem, X @ u, teacher @ u, xi)
    inside = c @ u.T / n
    if n > p:
        C = c @ c.T / n**2
        outside = np.linalg.cholesky(C) @ A
    else:
        outside = c / n @ A
    W = np.hstack([X, np.zeros_like(outside)])
    new = constrain(problem, W, np.hstack([inside, outside]), lr)
    teacher = np.hstack([teacher, np.zeros((k, outside.shape[1]))])
    return new @ teacher.T, new @ new.T
