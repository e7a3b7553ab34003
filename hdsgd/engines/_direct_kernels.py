# mypy: ignore-errors
"""The d-dimensional simulation, sample by sample as the model is written (theory §1).

Inputs are generated and consumed in blocks that stay in the second-level cache; the batch is never held, so memory is
O((p + k) d) whatever the batch size.

Index legend: j student rows (p); r teacher rows (k); i input coordinates (d); s samples of a block.
"""

import math

import numpy as np

from hdsgd._compile import kernel
from hdsgd.engines._normal_kernels import normals
from hdsgd.engines._step_kernels import (
    SPHERICAL,
    STEP,
    UNCONSTRAINED,
    coefficients,
    dot,
    learning_rate,
    record_step,
)

BLOCK_NUMBERS = 32768  # doubles of input a block (256 KiB): half of a common second-level cache


@kernel
def block_samples(dim, batch):
    """Samples a block: as many as fit, at least 1 and at most 256 or the batch."""
    return max(1, min(BLOCK_NUMBERS // dim, 256, batch))


@kernel
def fields_of(rows, z, out):
    """out[j, s] = <rows_j, z_s>, two rows at a time so that each input is loaded half as often."""
    m = rows.shape[0]
    for s in range(z.shape[0]):
        sample = z[s]
        for j in range(0, m - 1, 2):
            first, second = rows[j], rows[j + 1]
            total, other = 0.0, 0.0
            for i in range(len(sample)):
                total += first[i] * sample[i]
                other += second[i] * sample[i]
            out[j, s] = total
            out[j + 1, s] = other
        if m % 2:
            out[m - 1, s] = dot(rows[m - 1], sample)


@kernel
def add_gradient(c, z, G):
    """G_j += Σ_s c_js z_s, four samples at a time so that the gradient is loaded and stored a quarter as often."""
    n = z.shape[0]
    for j in range(G.shape[0]):
        g, row = G[j], c[j]
        for s in range(0, n - 3, 4):
            z0, z1, z2, z3 = z[s], z[s + 1], z[s + 2], z[s + 3]
            c0, c1, c2, c3 = row[s], row[s + 1], row[s + 2], row[s + 3]
            for i in range(len(g)):
                g[i] += (c0 * z0[i] + c1 * z1[i]) + (c2 * z2[i] + c3 * z3[i])
        for s in range(n - n % 4, n):
            sample, weight = z[s], row[s]
            for i in range(len(g)):
                g[i] += weight * sample[i]


@kernel
def accumulate(tables, square_loss, rows, stream, samples, G, cancel):
    """Add the gradient Σ_ν c_j^ν z^ν of `samples` fresh samples to G (p, d); `rows` holds W above W*.

    Returns False if cancelled.
    """
    p, k, d = G.shape[0], rows.shape[0] - G.shape[0], G.shape[1]
    size = block_samples(d, samples)
    numbers = np.empty(size * d)
    fields, c, scratch = np.empty((p + k) * size), np.empty(p * size), np.empty(2 * size)
    done = 0
    while done < samples:
        if cancel[0]:
            return False
        n = min(size, samples - done)
        normals(stream, numbers[: n * d])
        z = numbers[: n * d].reshape(n, d)
        error, work = scratch[:n], scratch[size : size + n]
        if tables.noise > 0.0:
            normals(stream, error)
            for s in range(n):
                error[s] *= -tables.noise
        else:
            error[:] = 0.0
        all_fields = fields[: (p + k) * n].reshape(p + k, n)
        fields_of(rows, z, all_fields)
        weights = c[: p * n].reshape(p, n)
        coefficients(tables, square_loss, all_fields[:p], all_fields[p:], error, weights, work)
        add_gradient(weights, z, G)
        done += n
    return True


@kernel
def update(rule, step, rows, G):
    """Turn the summed gradient G into one step of the first p of `rows`."""
    gamma = learning_rate(rule, step) / rule.batch
    for j in range(G.shape[0]):
        w, g = rows[j], G[j]
        along = dot(g, w) / dot(w, w) if rule.constraint == SPHERICAL else 0.0
        for i in range(len(w)):
            w[i] -= gamma * (g[i] - along * w[i])
        if rule.constraint != UNCONSTRAINED:
            scale = 1.0 / math.sqrt(dot(w, w))
            for i in range(len(w)):
                w[i] *= scale


@kernel
def overlap_square(rows, p):
    """||M||_F^2 with M = W W*ᵀ."""
    total = 0.0
    for j in range(p):
        for r in range(p, rows.shape[0]):
            total += dot(rows[j], rows[r]) ** 2
    return total


@kernel
def advance(tables, rule, until, rows, stream, progress, cancel):
    """Take steps in place, until `until` says stop, the state is not finite, or `cancel[0]` is set.

    A cancelled step is not recorded; the state is then in the middle of a step and must not be used again.
    """
    p = len(tables.output)
    G = np.empty((p, rows.shape[1]))
    for _ in range(until.steps):
        G[:] = 0.0
        if not accumulate(tables, rule.square_loss, rows, stream, rule.batch, G, cancel):
            return
        update(rule, progress[STEP], rows, G)
        if record_step(progress, until, overlap_square(rows, p)):
            return
