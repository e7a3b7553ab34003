# mypy: ignore-errors
"""The exact chain of the overlaps (theory §2): no d-dimensional vector is ever formed.

State: coordinates X of the student rows, shape (p, k + p).  Columns 0..k-1 are along an orthonormal basis of the
teacher span; columns k.. are a lower-triangular block along p orthogonal directions chosen anew after each step (an LQ
factorisation), so that what is orthogonal to the teacher keeps its relative accuracy however small it becomes.

Index legend: j, l student rows (p); b basis vectors of the span (k + p); s samples of a block; q = min(p, n_b)
directions outside the span that a step adds.
"""

import math

import numpy as np

from hdsgd._compile import kernel
from hdsgd.engines._normal_kernels import chi_square, next_normal, normals
from hdsgd.engines._step_kernels import (
    SPHERICAL,
    STEP,
    UNCONSTRAINED,
    coefficients,
    dot,
    learning_rate,
    record_step,
)

BLOCK = 256  # samples a block: the rows of a block stay in the first-level cache for small p and k


@kernel
def batch_sums(tables, rule, X, stream, H, C, few, fields, cancel):
    """Sums over one batch: H_jb = Σ c_j u_b and C_jl = Σ c_j c_l; of a batch of at most p samples also its c, in `few`.

    `fields` is scratch of shape (2k + 3p + 2, BLOCK).  Returns False if cancelled.
    """
    p, k = len(tables.output), tables.gram_root.shape[0]
    H[:] = 0.0
    C[:] = 0.0
    done = 0
    while done < rule.batch:
        if cancel[0]:
            return False
        n = min(BLOCK, rule.batch - done)
        flat = fields.reshape(-1)
        u = flat[: (k + p) * n].reshape(k + p, n)
        normals(stream, flat[: (k + p) * n])
        rest = flat[(k + p) * BLOCK :]
        student = rest[: p * n].reshape(p, n)
        c = rest[p * BLOCK : p * BLOCK + p * n].reshape(p, n)
        teacher = rest[2 * p * BLOCK : 2 * p * BLOCK + k * n].reshape(k, n)
        rest = rest[(2 * p + k) * BLOCK :]
        error, work = rest[:n], rest[BLOCK : BLOCK + n]
        if tables.noise > 0.0:
            normals(stream, error)
            for s in range(n):
                error[s] *= -tables.noise
        else:
            error[:] = 0.0
        combine(X, k, u, student)
        if tables.orthonormal:
            coefficients(tables, rule.square_loss, student, u, error, c, work)
        else:
            combine(tables.gram_root, 0, u, teacher)
            coefficients(tables, rule.square_loss, student, teacher, error, c, work)
        for j in range(p):
            for b in range(k + p):
                H[j, b] += dot(c[j], u[b])
            for l in range(j + 1):
                C[j, l] += dot(c[j], c[l])
        if rule.batch <= p:
            few[:, :n] = c
        done += n
    return True


@kernel
def combine(X, full, u, out):
    """out_j = Σ_b X_jb u_b, where row j of X has `full` columns and then a lower-triangular block."""
    for j in range(X.shape[0]):
        row, x = out[j], X[j, 0]
        first = u[0]
        for s in range(len(row)):
            row[s] = x * first[s]
        for b in range(1, full + j + 1):
            x, field = X[j, b], u[b]
            for s in range(len(row)):
                row[s] += x * field[s]


@kernel
def cholesky(C, root):
    """Lower-triangular root of the positive semi-definite C (lower half read); a vanishing pivot's column is zero."""
    p = C.shape[0]
    for j in range(p):
        pivot = C[j, j]
        for b in range(j):
            pivot -= root[j, b] ** 2
        keep = pivot > 1e-14 * C[j, j]
        root[j, j] = math.sqrt(pivot) if keep else 0.0
        for l in range(j + 1, p):
            value = C[l, j]
            for b in range(j):
                value -= root[l, b] * root[j, b]
            root[l, j] = value / root[j, j] if keep else 0.0
            root[j, l] = 0.0


@kernel
def bartlett(stream, df, A):
    """Lower-triangular A with A Aᵀ ~ Wishart(I, df) (Bartlett's decomposition; theory §2)."""
    for i in range(A.shape[0]):
        A[i, i] = math.sqrt(chi_square(stream, df - i))
        for l in range(i):
            A[i, l] = next_normal(stream)
        for l in range(i + 1, A.shape[1]):
            A[i, l] = 0.0


@kernel
def lower_triangular(block):
    """Bring `block` (p × m, m >= p) to lower-triangular form with non-negative diagonal, by Householder reflections."""
    p, m = block.shape
    for i in range(p):
        square = 0.0
        for b in range(i, m):
            square += block[i, b] ** 2
        norm = math.sqrt(square)
        if norm == 0.0:
            continue
        # Reflect row i onto the axis on the far side of its entry, which avoids cancellation; the sign of the axis is
        # free (the next step's directions are isotropic), so it is flipped to make the diagonal positive.
        far = -norm if block[i, i] > 0.0 else norm
        head = block[i, i] - far
        length2 = 2.0 * norm * (norm + abs(block[i, i]))
        for l in range(i + 1, p):
            scale = block[l, i] * head
            for b in range(i + 1, m):
                scale += block[l, b] * block[i, b]
            scale *= 2.0 / length2
            block[l, i] -= scale * head
            for b in range(i + 1, m):
                block[l, b] -= scale * block[i, b]
            if far < 0.0:
                block[l, i] = -block[l, i]
        block[i, i] = norm
        for b in range(i + 1, m):
            block[i, b] = 0.0


@kernel
def overlap_square(X, tables):
    """||M||_F^2 with M = X[:, :k] L_Pᵀ."""
    k = tables.gram_root.shape[0]
    total = 0.0
    for j in range(X.shape[0]):
        for r in range(k):
            m = 0.0
            for b in range(r + 1):
                m += X[j, b] * tables.gram_root[r, b]
            total += m * m
    return total


@kernel
def advance(tables, rule, until, X, stream, dim, progress, cancel):
    """Take steps of the chain in place, until `until` says stop, the state is not finite, or `cancel[0]` is set.

    A cancelled step is not recorded; the state is then in the middle of a step and must not be used again.
    """
    p, k = len(tables.output), tables.gram_root.shape[0]
    q = min(p, rule.batch)
    H, C, few = np.empty((p, k + p)), np.empty((p, p)), np.empty((p, q))
    root, A = np.empty((p, p)), np.empty((q, q))
    orthogonal = np.empty((p, p + q))
    fields = np.empty((2 * k + 3 * p + 2, BLOCK))
    for _ in range(until.steps):
        if not batch_sums(tables, rule, X, stream, H, C, few, fields, cancel):
            return
        gamma = learning_rate(rule, progress[STEP]) / rule.batch
        if rule.batch > p:
            cholesky(C, root)
        else:
            root[:, :q] = few
        bartlett(stream, dim - k - p, A)
        for j in range(p):
            if rule.constraint == SPHERICAL:
                radial, norm2 = 0.0, 0.0
                for b in range(k + p):
                    radial += H[j, b] * X[j, b]
                    norm2 += X[j, b] ** 2
                for b in range(k + p):
                    H[j, b] -= radial / norm2 * X[j, b]
            for b in range(k + p):
                X[j, b] -= gamma * H[j, b]
            for b in range(p):
                orthogonal[j, b] = X[j, k + b]
            for l in range(q):
                value = 0.0
                for b in range(l, q):
                    value += root[j, b] * A[b, l]
                orthogonal[j, p + l] = -gamma * value
            if rule.constraint != UNCONSTRAINED:
                norm2 = 0.0
                for b in range(k):
                    norm2 += X[j, b] ** 2
                for b in range(p + q):
                    norm2 += orthogonal[j, b] ** 2
                scale = 1.0 / math.sqrt(norm2)
                for b in range(k):
                    X[j, b] *= scale
                for b in range(p + q):
                    orthogonal[j, b] *= scale
        lower_triangular(orthogonal)
        for j in range(p):
            for b in range(p):
                X[j, k + b] = orthogonal[j, b] if b <= j else 0.0
        if record_step(progress, until, overlap_square(X, tables)):
            return
