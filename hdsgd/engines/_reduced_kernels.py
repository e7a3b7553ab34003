# mypy: ignore-errors
"""The exact chain of the overlaps (theory §2): no d-dimensional vector is ever formed.

State: coordinates X of the student rows, shape (p, k + p).  Columns 0..k-1 are along an orthonormal basis of the
teacher span; columns k.. are a lower-triangular block along p orthogonal directions chosen anew after each step (an LQ
factorisation), so that what is orthogonal to the teacher keeps its relative accuracy however small it becomes.

Index legend: j, l student rows (p); b basis vectors of the span (k + p); s samples of a block; q = min(p, n_b)
directions outside the span that a step adds.
"""

import math
from typing import NamedTuple

import numpy as np

from hdsgd._compile import inlined, inner, plain_kernel
from hdsgd.engines._normal_kernels import chi_square, normals
from hdsgd.engines._step_kernels import dot, learning_rate, record_step
from hdsgd.engines._step_types import STEP
from hdsgd.engines._stream_types import aligned_empty
from hdsgd.problem._coefficient_kernels import coefficients, row

BLOCK = 512  # samples a block: the rows of a block stay in the first-level cache for small p and k


class Workspace(NamedTuple):
    """Of a run, allocated once."""

    H: np.ndarray  # (p, k + p)
    C: np.ndarray  # (p, p)
    few: np.ndarray  # (p, q)
    root: np.ndarray  # (p, p)
    A: np.ndarray  # (q, q)
    orthogonal: np.ndarray  # (p, p + q)
    block: np.ndarray  # 2k + 3p + 2 rows of at most BLOCK samples


def new_workspace(p, k, batch):
    q = min(p, batch)
    shapes = (p, k + p), (p, p), (p, q), (p, p), (q, q), (p, p + q), ((2 * k + 3 * p + 2) * min(BLOCK, batch),)
    *small, block = shapes
    return Workspace(*(np.empty(shape) for shape in small), aligned_empty(block[0], np.float64))


@inlined
def batch_sums(tables, rule, X, stream, workspace, cancel):
    """Sums over one batch: H_jb = Σ c_j u_b and C_jl = Σ c_j c_l; of a batch of at most p samples also its c, in `few`
    (unless p = 1, whose root of C is at hand).  Returns False if cancelled.
    """
    p, k = len(tables.output), tables.gram_root.shape[0]
    H, C, few, block = workspace.H, workspace.C, workspace.few, workspace.block
    noisy = tables.noise > 0.0
    lean = tables.lean.shape[0] > 0 and rule.errors.function == 0
    for j in range(p):
        for b in range(k + p):
            H[j, b] = 0.0
        for l in range(p):
            C[j, l] = 0.0
    done = 0
    while done < rule.batch:
        if cancel[0]:
            return False
        n = min(BLOCK, rule.batch - done)
        done += n
        # The rows: in-span inputs u, error (drawn as label noise), then room.
        normals(stream, block[: (k + p + (1 if noisy else 0)) * n])
        error = row(block, k + p, n)
        if lean:
            lean_sums(tables, rule.errors.with_output, X, block, n, noisy, H, C)
            continue
        if noisy:
            for s in range(n):
                error[s] *= -tables.noise
        else:
            for s in range(n):
                error[s] = 0.0
        student = block[(k + p + 1) * n : (k + 2 * p + 1) * n]
        c = block[(k + 2 * p + 1) * n : (k + 3 * p + 1) * n]
        work = row(block, k + 3 * p + 1, n)
        combine(X, k, block, n, student)
        if tables.orthonormal:
            coefficients(tables, rule.errors, student, block, error, c, work)
        else:
            teacher = block[(k + 3 * p + 2) * n : (2 * k + 3 * p + 2) * n]
            combine(tables.gram_root, 0, block, n, teacher)
            coefficients(tables, rule.errors, student, teacher, error, c, work)
        for j in range(p):
            for b in range(k + p):
                H[j, b] += dot(row(c, j, n), row(block, b, n))
            for l in range(j + 1):
                C[j, l] += dot(row(c, j, n), row(c, l, n))
        if rule.batch <= p:
            for j in range(p):
                for s in range(n):
                    few[j, s] = c[j * n + s]
    return True


@inner
def lean_sums(tables, with_output, X, block, n, noisy, H, C):
    """The block's share of H and C for p = k = 1 in one pass: everything between the inputs and the sums in registers.

    The same numbers as the general path, up to rounding, for σ and h* of degree at most 4 (longer fixed lengths would
    slow the common ones down).
    """
    a, t = tables.lean[0], tables.lean[1]
    a0, a1, a2, a3, a4 = a[0], a[1], a[2], a[3], a[4]
    t0, t1, t2, t3, t4 = t[0], t[1], t[2], t[3], t[4]
    weight, along, across, sigma = tables.output[0], X[0, 0], X[0, 1], tables.noise
    fitted = weight if with_output else 0.0
    # Without noise the third row is not drawn; any finite numbers do in its place.
    first, second, noise = row(block, 0, n), row(block, 1, n), row(block, 2 if noisy else 0, n)
    h0, h1, total = 0.0, 0.0, 0.0
    for s in range(n):
        y = first[s]
        x = along * y + across * second[s]
        f = (((a4 * x + a3) * x + a2) * x + a1) * x + a0
        slope = ((4 * a4 * x + 3 * a3) * x + 2 * a2) * x + a1
        h = (((t4 * y + t3) * y + t2) * y + t1) * y + t0
        c = weight * slope * (fitted * f - h - sigma * noise[s])
        h0 += c * y
        h1 += c * second[s]
        total += c * c
    H[0, 0] += h0
    H[0, 1] += h1
    C[0, 0] += total


@inner
def combine(X, full, u, n, out):
    """out_j = Σ_b X_jb u_b, where row j of X has `full` columns and then a lower-triangular block."""
    for j in range(X.shape[0]):
        result, x, field = row(out, j, n), X[j, 0], row(u, 0, n)
        for s in range(n):
            result[s] = x * field[s]
        for b in range(1, full + j + 1):
            x, field = X[j, b], row(u, b, n)
            for s in range(n):
                result[s] += x * field[s]


@plain_kernel
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


@plain_kernel
def bartlett(stream, df, A):
    """Lower-triangular A with A Aᵀ ~ Wishart(I, df) (Bartlett's decomposition; theory §2)."""
    for i in range(A.shape[0]):
        A[i, i] = math.sqrt(chi_square(stream, df - i))
        normals(stream, A[i, :i])
        for l in range(i + 1, A.shape[1]):
            A[i, l] = 0.0


@plain_kernel
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


@inlined
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


@inner
def displace(X, V, scale, root, A, normalised, orthogonal):
    """Add V (p, k + p) within the span and ``scale root A`` (root (p, q), A (q, q) lower triangular) outside to the
    rows, normalise them if asked to, and bring them to the coordinates of the new span.
    """
    p, q = X.shape[0], A.shape[0]
    k = X.shape[1] - p
    for j in range(p):
        for b in range(k):
            X[j, b] += V[j, b]
        for b in range(p):
            orthogonal[j, b] = X[j, k + b] + V[j, k + b]
        for l in range(q):
            value = 0.0
            for b in range(l, q):
                value += root[j, b] * A[b, l]
            orthogonal[j, p + l] = scale * value
        if normalised:
            norm2 = 0.0
            for b in range(k):
                norm2 += X[j, b] ** 2
            for b in range(p + q):
                norm2 += orthogonal[j, b] ** 2
            factor = 1.0 / math.sqrt(norm2)
            for b in range(k):
                X[j, b] *= factor
            for b in range(p + q):
                orthogonal[j, b] *= factor
    lower_triangular(orthogonal)
    for j in range(p):
        for b in range(p):
            X[j, k + b] = orthogonal[j, b] if b <= j else 0.0


@inlined
def descend(rule, gamma, X, H):
    """Make of the gradients H, per row and within the span, the displacements of a step in place."""
    for j in range(X.shape[0]):
        if rule.tangential:
            radial, norm2 = 0.0, 0.0
            for b in range(X.shape[1]):
                radial += H[j, b] * X[j, b]
                norm2 += X[j, b] ** 2
            for b in range(X.shape[1]):
                H[j, b] -= radial / norm2 * X[j, b]
        for b in range(X.shape[1]):
            H[j, b] *= -gamma


@plain_kernel
def advance(tables, rule, stop_at, X, stream, dim, workspace, progress, cancel):
    """Take steps of the chain in place, until `stop_at` says so, the state is not finite, or `cancel[0]` is set.

    A cancelled step is not recorded; the state is then in the middle of a step and must not be used again.
    """
    p, k = len(tables.output), tables.gram_root.shape[0]
    q = min(p, rule.batch)
    H, C, few, root, A = workspace.H, workspace.C, workspace.few, workspace.root, workspace.A
    for _ in range(stop_at.steps):
        if not batch_sums(tables, rule, X, stream, workspace, cancel):
            return
        gamma = learning_rate(rule, progress[STEP]) / rule.batch
        if rule.batch > p or p == 1:
            cholesky(C, root)
        else:
            for j in range(p):
                for l in range(q):
                    root[j, l] = few[j, l]
        bartlett(stream, dim - k - p, A)
        descend(rule, gamma, X, H)
        displace(X, H, -gamma, root, A, rule.normalised, workspace.orthogonal)
        if record_step(progress, stop_at, overlap_square(X, tables), rule.batch):
            return
