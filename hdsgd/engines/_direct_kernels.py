# mypy: ignore-errors
"""The d-dimensional simulation, sample by sample as the model is written (theory §1).

Inputs are generated and consumed in blocks that stay in the second-level cache; the batch is never held, so memory is
O((p + k) d) whatever the batch size.

Index legend: j student rows (p); r teacher rows (k); i input coordinates (d); s samples of a block.
"""

import math
from typing import NamedTuple

import numpy as np

from hdsgd._compile import inner, plain_kernel
from hdsgd.engines._normal_kernels import normals, normals32
from hdsgd.engines._step_kernels import dot, learning_rate, record_step
from hdsgd.engines._step_types import STEP
from hdsgd.engines._stream_types import aligned_empty
from hdsgd.problem._coefficient_kernels import coefficients, row

BLOCK_NUMBERS = 32768  # doubles of input a block (256 KiB): half of a common second-level cache
BLOCK_SAMPLES = 256  # samples a block, at most


@inner
def block_samples(dim, batch):
    """Samples a block: as many as fit, at least 1 and at most 256 or the batch."""
    return max(1, min(BLOCK_NUMBERS // dim, BLOCK_SAMPLES, batch))


class Workspace(NamedTuple):
    """Of a group of samples, allocated once."""

    z: np.ndarray  # the inputs of a block
    block: np.ndarray  # 2p + k + 2 rows: error, work, fields of students and teachers, coefficients


def new_workspace(p, k, dim, batch, dtype):
    size = max(1, min(BLOCK_NUMBERS // dim, BLOCK_SAMPLES, batch))
    return Workspace(aligned_empty(size * dim, dtype), np.empty((2 * p + k + 2) * size))


@inner
def fields_of(rows, z, n, out):
    """out[j][s] = <rows_j, z_s>, two rows at a time so that each input is loaded half as often."""
    m, d = rows.shape
    for s in range(n):
        sample = row(z, s, d)
        for j in range(0, m - 1, 2):
            first, second = rows[j], rows[j + 1]
            total = first[0] - first[0]  # zero in the precision of the rows
            other = total
            for i in range(d):
                total += first[i] * sample[i]
                other += second[i] * sample[i]
            out[j * n + s] = total
            out[(j + 1) * n + s] = other
        if m % 2:
            last = rows[m - 1]
            total = last[0] - last[0]
            for i in range(d):
                total += last[i] * sample[i]
            out[(m - 1) * n + s] = total


@inner
def add_gradient(c, z, n, G):
    """G_j += Σ_s c_js z_s, four samples at a time so that the gradient is loaded and stored a quarter as often."""
    p, d = G.shape
    for j in range(p):
        g, weights = G[j], row(c, j, n)
        for s in range(0, n - 3, 4):
            z0, z1, z2, z3 = row(z, s, d), row(z, s + 1, d), row(z, s + 2, d), row(z, s + 3, d)
            c0, c1, c2, c3 = weights[s], weights[s + 1], weights[s + 2], weights[s + 3]
            for i in range(d):
                g[i] += (c0 * z0[i] + c1 * z1[i]) + (c2 * z2[i] + c3 * z3[i])
        for s in range(n - n % 4, n):
            sample, weight = row(z, s, d), weights[s]
            for i in range(d):
                g[i] += weight * sample[i]


@inner
def consume(tables, errors, rows, z, n, noisy, G, block):
    """Add to G the gradient of n samples whose inputs are in z; row 0 of `block` holds their label noise if `noisy`."""
    p, k = G.shape[0], rows.shape[0] - G.shape[0]
    error, work = row(block, 0, n), row(block, 1, n)
    sigma = -tables.noise if noisy else 0.0
    for s in range(n):
        error[s] = sigma * error[s] if noisy else 0.0
    student = block[2 * n : (2 + p) * n]
    teacher = block[(2 + p) * n : (2 + p + k) * n]
    c = block[(2 + p + k) * n : (2 + 2 * p + k) * n]
    fields_of(rows, z, n, block[2 * n : (2 + p + k) * n])
    coefficients(tables, errors, student, teacher, error, c, work)
    add_gradient(c, z, n, G)


@inner
def clear(G):
    for j in range(G.shape[0]):
        for i in range(G.shape[1]):
            G[j, i] = 0.0


@plain_kernel
def accumulate(tables, errors, rows, stream, samples, G, workspace, cancel):
    """Put the gradient Σ_ν c_j^ν z^ν of `samples` fresh samples into G (p, d); `rows` holds W above W*.

    Returns False if cancelled.
    """
    d, noisy = G.shape[1], tables.noise > 0.0
    size = block_samples(d, samples)
    clear(G)
    done = 0
    while done < samples:
        if cancel[0]:
            return False
        n = min(size, samples - done)
        done += n
        if noisy:
            normals(stream, workspace.block[:n])
        normals(stream, workspace.z[: n * d])
        consume(tables, errors, rows, workspace.z, n, noisy, G, workspace.block)
    return True


@plain_kernel
def accumulate32(tables, errors, rows, stream, samples, G, workspace, cancel):
    """As `accumulate` with inputs, rows and fields in single precision; coefficients and G stay in double."""
    d, noisy = G.shape[1], tables.noise > 0.0
    size = block_samples(d, samples)
    clear(G)
    done = 0
    while done < samples:
        if cancel[0]:
            return False
        n = min(size, samples - done)
        done += n
        if noisy:
            normals32(stream, workspace.z[:n])
            for s in range(n):
                workspace.block[s] = workspace.z[s]
        normals32(stream, workspace.z[: n * d])
        consume(tables, errors, rows, workspace.z, n, noisy, G, workspace.block)
    return True


@inner
def update(rule, step, rows, G):
    """Turn the summed gradient G into one step of the first p of `rows`."""
    gamma = learning_rate(rule, step) / rule.batch
    for j in range(G.shape[0]):
        w, g = rows[j], G[j]
        along = dot(g, w) / dot(w, w) if rule.tangential else 0.0
        for i in range(len(w)):
            w[i] -= gamma * (g[i] - along * w[i])
        if rule.normalised:
            scale = 1.0 / math.sqrt(dot(w, w))
            for i in range(len(w)):
                w[i] *= scale


@inner
def overlap_square(rows, p):
    """||M||_F^2 with M = W W*ᵀ."""
    total = 0.0
    for j in range(p):
        for r in range(p, rows.shape[0]):
            total += dot(rows[j], rows[r]) ** 2
    return total


@plain_kernel
def finish_step(rule, stop_at, rows, G, progress):
    """Step with the gradients of all groups, G (groups, p, d), added in their order; return whether to stop."""
    total = G[0]
    for g in range(1, G.shape[0]):
        for j in range(G.shape[1]):
            into, part = total[j], G[g, j]
            for i in range(len(into)):
                into[i] += part[i]
    update(rule, progress[STEP], rows, total)
    return record_step(progress, stop_at, overlap_square(rows, G.shape[1]), rule.batch)


@plain_kernel
def advance(tables, rule, stop_at, rows, stream, G, workspace, progress, cancel):
    """Take steps in place with one group of samples, until `stop_at` says so or the state is not finite.

    G (1, p, d) is workspace.  Returns early if `cancel[0]` is set; a cancelled step is not recorded, and the state is
    then in the middle of a step and must not be used again.
    """
    for _ in range(stop_at.steps):
        if not accumulate(tables, rule.errors, rows, stream, rule.batch, G[0], workspace, cancel):
            return
        if finish_step(rule, stop_at, rows, G, progress):
            return
