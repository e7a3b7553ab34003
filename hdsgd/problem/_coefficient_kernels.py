# mypy: ignore-errors
"""Per-sample gradient coefficients of a problem, which engines and quadratures share.

Index legend: j, l student rows (p); r teacher rows (k); s samples of a block (n).

A block of samples is stored as rows of n numbers, one row per field, laid end to end in a one-dimensional array
(`row` cuts one out), so that every inner loop runs over contiguous samples and vectorises, for any n.
"""

import math

from hdsgd._callbacks import add_function, apply_error
from hdsgd._compile import inlined, inner
from hdsgd.problem._table_types import ERF, RELU, TANH


@inner
def polynomial(coefs, x, out):
    """out = Σ_m coefs[m] x^m by Horner's rule, four coefficients a pass; their number is a multiple of four."""
    for s in range(len(x)):
        out[s] = 0.0
    for m in range(len(coefs) - 4, -1, -4):
        c3, c2, c1, c0 = coefs[m + 3], coefs[m + 2], coefs[m + 1], coefs[m]
        for s in range(len(x)):
            out[s] = (((out[s] * x[s] + c3) * x[s] + c2) * x[s] + c1) * x[s] + c0


@inner
def add_link(code, functions, scale, coef, x, out):
    """out += coef φ(scale x); `code` and `functions` (handles of value and slope) as in `Tables`."""
    if code == RELU:
        for s in range(len(x)):
            out[s] += coef * max(scale * x[s], 0.0)
    elif code == ERF:
        for s in range(len(x)):
            out[s] += coef * math.erf(scale * x[s])
    elif code == TANH:
        for s in range(len(x)):
            out[s] += coef * math.tanh(scale * x[s])
    else:
        add_function(functions[0], scale, coef, x, out)


@inner
def add_link_slope(code, functions, scale, coef, x, out):
    """out += d/dx coef φ(scale x)."""
    factor = coef * scale
    if code == RELU:
        for s in range(len(x)):
            out[s] += factor if scale * x[s] > 0.0 else 0.0
    elif code == ERF:
        factor *= 2.0 / math.sqrt(math.pi)
        for s in range(len(x)):
            out[s] += factor * math.exp(-((scale * x[s]) ** 2))
    elif code == TANH:
        for s in range(len(x)):
            out[s] += factor * (1.0 - math.tanh(scale * x[s]) ** 2)
    else:
        add_function(functions[1], scale, factor, x, out)


@inlined
def row(flat, j, n):
    """Row j of a block."""
    return flat[j * n : (j + 1) * n]


@inlined
def subtract_target(tables, teacher, error, work):
    """error -= h*(λ*), `teacher` holding one row per direction; `work` is one row of room."""
    n = len(error)
    for r in range(tables.additive.shape[0]):
        polynomial(tables.additive[r], row(teacher, r, n), work)
        for s in range(n):
            error[s] -= work[s]
    for t in range(len(tables.cross_coefs)):
        coef = tables.cross_coefs[t]
        for s in range(n):
            work[s] = coef
        for r in range(tables.cross_exponents.shape[1]):
            field = row(teacher, r, n)
            for _ in range(tables.cross_exponents[t, r]):
                for s in range(n):
                    work[s] *= field[s]
        for s in range(n):
            error[s] -= work[s]
    for u in range(len(tables.target_codes)):
        field = row(teacher, tables.target_indices[u], n)
        add_link(
            tables.target_codes[u], tables.target_functions[u], tables.target_scales[u], -tables.target_link_coefs[u],
            field, error,
        )  # fmt: skip


@inlined
def activate(tables, field, out):
    """out = σ(field)."""
    polynomial(tables.activation, field, out)
    for u in range(len(tables.activation_codes)):
        add_link(
            tables.activation_codes[u], tables.activation_functions[u], tables.activation_scales[u],
            tables.activation_coefs[u], field, out,
        )  # fmt: skip


@inlined
def activate_slope(tables, field, out):
    """out = σ'(field)."""
    polynomial(tables.slope, field, out)
    for u in range(len(tables.activation_codes)):
        add_link_slope(
            tables.activation_codes[u], tables.activation_functions[u], tables.activation_scales[u],
            tables.activation_coefs[u], field, out,
        )  # fmt: skip


@inlined
def own_error(tables, errors, student, error, output, work):
    """error = e(f, y) of one's own, from minus the label; `output` is room for f."""
    n = len(error)
    for s in range(n):
        error[s] = -error[s]
        output[s] = 0.0
    for j in range(len(tables.output)):
        weight = tables.output[j]
        activate(tables, row(student, j, n), work)
        for s in range(n):
            output[s] += weight * work[s]
    apply_error(errors.function, output, error, error)


@inner
def coefficients(tables, errors, student, teacher, error, c, work):
    """Gradient coefficients of a block of samples: c_j = (a_j/p) σ'(λ_j) e (theory §1).

    On entry the row `error` holds minus the label noise; on return e, which `errors` (an `ErrorRule`) says: f - y
    (square loss), -y (correlation loss) or a function of f and y.
    """
    n = len(error)
    subtract_target(tables, teacher, error, work)
    if errors.function != 0:
        own_error(tables, errors, student, error, row(c, 0, n), work)
    for j in range(len(tables.output)):
        field, slope, weight = row(student, j, n), row(c, j, n), tables.output[j]
        if errors.with_output and errors.function == 0:
            activate(tables, field, work)
            for s in range(n):
                error[s] += weight * work[s]
        activate_slope(tables, field, slope)
    for j in range(len(tables.output)):
        slope, weight = row(c, j, n), tables.output[j]
        for s in range(n):
            slope[s] *= weight * error[s]
