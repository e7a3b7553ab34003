# mypy: ignore-errors
"""Kernels of the population moments of problems with links (relu, erf, tanh), alone or mixed with polynomials.

Every function of one field is written with signs.  ``relu(x) = x/2 + x sgn(x)/2``.  With an independent
``ζ ~ N(0, v)``, ``v = 1/(2b²)``, and ``y = x + ζ``: ``erf(bx) = E_ζ sgn(y)``, and its derivative is ``E_ζ 2δ(y)``.
tanh is a mixture of erfs (`hdsgd.moments.links.TANH_MIXTURES`).  A function is thus a sum of groups ``poly(x) K(y)``,
``K`` one of 1, sgn, δ, each group with its own independent ζ, and an expectation of a product of up to four functions
is a sum of

    E[Π_i x_i^{n_i} Π_{i in S} sgn(y_i) Π_{i in T} δ(y_i)],      all fields jointly Gaussian with mean 0.

A δ conditions the others on ``y = 0``; Stein's lemma lowers the powers,

    E[x_i R] = Σ_h Cov(x_i, x_h) E[∂R/∂x_h] + Σ_{h in S} 2 Cov(x_i, y_h) E[δ(y_h) R without sgn(y_h)];

what is left is the mean of a product of signs: 0 for an odd number, ``(2/π) arcsin ρ`` for two (Sheppard), and for four
(only relu has that many) an integral by Gauss-Legendre quadrature, from Plackett's identity ``∂/∂ρ_12 E[s1 s2 s3 s4] =
(2/π)² arcsin(ρ_34|12)/sqrt(1 - ρ_12²)`` along the path that scales the correlations of one variable from 0 up.

Covariances are kept as products of vectors in R⁸ (rows of a root of Ω, and one coordinate for each ζ): conditioning is
a projection, accurate even for nearly collinear fields (quadrature included, errors stay below 1e-8).  The signs of
relu have ``ζ`` too, of standard deviation 1e-8 |x|: it changes nothing where Ω is regular, and about 1e-8 where it is
singular (there ``δ(y) sgn(y)²`` and the like get the values that make Stein's lemma hold).

Index legend: j, l students; i, h fields; m = p + K fields in all; s bits of the set of conditioned signs.
"""

import math

import numpy as np

from hdsgd._compile import kernel
from hdsgd.moments._polynomial_kernels import extended
from hdsgd.moments._table_types import DELTA, SIGN

# Functions of the bank; see hdsgd.moments._table_types.LinkTables.
ONE, SIGMA, EULER_SIGMA, SLOPE, EULER_SLOPE, CURVE, X_SLOPE, XX_SLOPE, RIDGES = range(9)


@kernel
def dot(x, y):
    total = 0.0
    for n in range(8):
        total += x[n] * y[n]
    return total


@kernel
def condition(X, h, out):
    """Vectors of the eight variables given that variable h is 0; `out` may be X."""
    norm = dot(X[h], X[h])
    for a in range(8):
        if a != h:
            ratio = dot(X[a], X[h]) / norm
            for n in range(8):
                out[a, n] = X[a, n] - ratio * X[h, n]
    for n in range(8):
        out[h, n] = 0.0


@kernel
def root(cov, fields, X):
    """X[:4, :4] = lower triangular root of the covariance of four fields; a dependent field gets a zero pivot."""
    for i in range(4):
        for h in range(i + 1):
            rest = cov[fields[i], fields[h]]
            for n in range(h):
                rest -= X[i, n] * X[h, n]
            if i == h:
                X[i, i] = math.sqrt(rest) if rest > 4e-16 * cov[fields[i], fields[i]] else 0.0
            else:
                X[i, h] = rest / X[h, h] if X[h, h] > 0.0 else 0.0


@kernel
def arc(c, v, w):
    """arcsin of the correlation, 0 if a variance vanishes."""
    if v <= 0.0 or w <= 0.0:
        return 0.0
    return math.asin(min(1.0, max(-1.0, c / math.sqrt(v * w))))


@kernel
def four_signs(U, nodes, weights):
    """E[s1 s2 s3 s4] of standard Gaussians given as unit vectors, (4, 8).

    Variable e is replaced by ``t u_e + sqrt(1-t²) u_⊥``, t from 0 to 1; with ``t u_e·u_i = sin θ`` the mean is
    ``(4/π²) Σ_{i != e} ∫_0^{arcsin u_e·u_i} arcsin(ρ_jk|ie) dθ``, (j, k) being the other two.
    """
    e, least = 0, 2.0
    for a in range(4):
        largest = 0.0
        for b in range(4):
            if b != a:
                largest = max(largest, abs(dot(U[a], U[b])))
        if largest < least:
            e, least = a, largest
    total = 0.0
    q, x, y = np.empty(8), np.empty(8), np.empty(8)
    for i in range(4):
        rho = min(1.0, max(-1.0, dot(U[i], U[e])))
        if i == e or rho == 0.0:
            continue
        j = 0
        while j in (i, e):
            j += 1
        k = 6 - i - e - j
        rho_j, rho_k = dot(U[i], U[j]), dot(U[i], U[k])
        for n in range(8):  # given variable i
            q[n] = U[e, n] - rho * U[i, n]
            x[n] = U[j, n] - rho_j * U[i, n]
            y[n] = U[k, n] - rho_k * U[i, n]
        qq, qx, qy, xx, yy, xy = dot(q, q), dot(q, x), dot(q, y), dot(x, x), dot(y, y), dot(x, y)
        top = math.asin(rho)
        for n in range(len(nodes)):
            t = math.sin(top * nodes[n]) / rho
            share = t * t / (t * t * qq + (1.0 - t) * (1.0 + t))
            total += top * weights[n] * arc(xy - share * qx * qy, xx - share * qx * qx, yy - share * qy * qy)
    return 4.0 / math.pi**2 * total


@kernel
def sign_mean(X, variables, count, nodes, weights):
    """E[Π sgn] of `count` of the eight variables."""
    if count == 0:
        return 1.0
    if count == 2:
        y, w = X[variables[0]], X[variables[1]]
        return 2.0 / math.pi * arc(dot(y, w), dot(y, y), dot(w, w))
    if count % 2 == 1:
        return 0.0
    U = np.empty((4, 8))
    for a in range(4):
        norm = math.sqrt(dot(X[variables[a]], X[variables[a]]))
        for n in range(8):
            U[a, n] = X[variables[a], n] / norm
    return four_signs(U, nodes, weights)


@kernel
def group_mean(t, cov, fields, groups):
    """E[Π_i poly_i(x_i) K_i(y_i)] for four groups at four fields."""
    signs = np.empty(4, dtype=np.int64)
    count, parity = 0, 0
    for i in range(4):
        parity += t.parities[groups[i]]
        if t.kinds[groups[i]] == SIGN:
            signs[count] = i
            count += 1
            parity += 1
    if parity % 2 == 1 and parity < 8:  # odd in the fields; 8 and more mark groups of mixed parity
        return 0.0
    vectors, densities = np.zeros((1 << count, 8, 8)), np.empty(1 << count)
    X = vectors[0]
    root(cov, fields, X)
    for i in range(4):
        for n in range(4):
            X[4 + i, n] = X[i, n]
        X[4 + i, 4 + i] = math.sqrt(t.inflations[groups[i]] + 1e-16 * cov[fields[i], fields[i]])
    densities[0] = 1.0
    for i in range(4):
        if t.kinds[groups[i]] == DELTA:
            densities[0] /= math.sqrt(2.0 * math.pi * dot(X[4 + i], X[4 + i]))
            condition(X, 4 + i, X)
    strides = np.empty(4, dtype=np.int64)
    size = 1
    for i in range(3, -1, -1):
        strides[i] = size
        size *= t.orders[groups[i]]
    for s in range(1, 1 << count):  # condition on the lowest sign of s, after the others
        b = 0
        while not (s >> b) & 1:
            b += 1
        before, h = s & (s - 1), 4 + signs[b]
        densities[s] = densities[before] / math.sqrt(2.0 * math.pi * dot(vectors[before, h], vectors[before, h]))
        condition(vectors[before], h, vectors[s])
    W = np.zeros((1 << count, size))
    powers, left = np.empty(4, dtype=np.int64), np.empty(4, dtype=np.int64)
    total = 0.0
    for s in range((1 << count) - 1, -1, -1):
        X = vectors[s]
        remaining = 0
        for b in range(count):
            if not (s >> b) & 1:
                left[remaining] = 4 + signs[b]
                remaining += 1
        for index in range(size):
            first, order, weight = -1, remaining, 1.0
            for i in range(3, -1, -1):
                powers[i] = index // strides[i] % t.orders[groups[i]]
                order += powers[i]
                weight *= t.coefs[groups[i], powers[i]]
                if powers[i] > 0:
                    first = i
            if order % 2 == 1:
                continue
            if first < 0:
                value = densities[s] * sign_mean(X, left, remaining, t.nodes, t.weights)
            else:
                powers[first] -= 1
                base = index - strides[first]
                value = 0.0
                for h in range(4):
                    if powers[h] > 0:
                        value += powers[h] * dot(X[first], X[h]) * W[s, base - strides[h]]
                for b in range(count):
                    if not (s >> b) & 1:
                        value += 2.0 * dot(X[first], X[4 + signs[b]]) * W[s | (1 << b), base]
            W[s, index] = value
            if s == 0:
                total += weight * value
    return total


@kernel
def product_mean(t, cov, f0, i0, f1, i1, f2, i2, f3, i3):
    """E[f0(x_i0) f1(x_i1) f2(x_i2) f3(x_i3)] for functions of the bank."""
    fields = np.empty(4, dtype=np.int64)
    fields[0], fields[1], fields[2], fields[3] = i0, i1, i2, i3
    groups = np.empty(4, dtype=np.int64)
    total = 0.0
    for g0 in range(t.starts[f0], t.starts[f0 + 1]):
        groups[0] = g0
        for g1 in range(t.starts[f1], t.starts[f1 + 1]):
            groups[1] = g1
            for g2 in range(t.starts[f2], t.starts[f2 + 1]):
                groups[2] = g2
                for g3 in range(t.starts[f3], t.starts[f3 + 1]):
                    groups[3] = g3
                    total += group_mean(t, cov, fields, groups)
    return total


@kernel
def member(t, i, kind):
    """Bank index of u_i (kind 0), its Euler version (1) or its derivative (2), and its factor."""
    p = len(t.output)
    if i < p:
        return (SIGMA, EULER_SIGMA, SLOPE)[kind], t.output[i]
    return RIDGES + 3 * (i - p) + kind, 1.0


@kernel
def erf_pair(t, cov, i, h):
    """E[u_i u_h] without the constant, of sums of erfs."""
    total = 0.0
    for a in range(t.counts[i]):
        for b in range(t.counts[h]):
            v, w = cov[i, i] + t.inflations[i, a], cov[h, h] + t.inflations[h, b]
            total += t.coefs[i, a] * t.coefs[h, b] * arc(cov[i, h], v, w)
    return 2.0 / math.pi * total


@kernel
def erf_gradient(t, j, i, cov):
    """E[s_j' u_i] and E[s_j u_i'] of sums of erfs."""
    curve, slope = 0.0, 0.0
    for a in range(t.counts[j]):
        v = cov[j, j] + t.inflations[j, a]
        for b in range(t.counts[i]):
            w = cov[i, i] + t.inflations[i, b]
            weight = t.coefs[j, a] * t.coefs[i, b] * 2.0 / (math.pi * math.sqrt(v * w - cov[i, j] ** 2))
            slope += weight
            curve -= weight * cov[i, j] / v
    return curve, slope


@kernel
def erf_block(t, first, tangent, j, l, cov, reach, V, V_d, out):
    """out = D_jl, Z_jl, F_jl, F_lj, H_jl of sums of erfs; given y_j = y_l = 0 the error is again a sum of erfs.

    `V` is the conditional covariance of the fields.  `_d` is the derivative with respect to the scale of Ω, at fixed
    inflations; ``Z = 2 dD/dscale``.
    """
    m = len(cov)
    for n in range(5):
        out[n] = 0.0
    for a in range(t.counts[j]):
        for b in range(t.counts[l]):
            v, w, c = cov[j, j] + t.inflations[j, a], cov[l, l] + t.inflations[l, b], cov[j, l]
            det = v * w - c * c
            density = t.coefs[j, a] * t.coefs[l, b] * 2.0 / (math.pi * math.sqrt(det))
            density_d = -0.5 * (cov[j, j] * w + v * cov[l, l] - 2.0 * c * c) / det
            for i in range(m):
                reach[i, 0] = (cov[i, j] * w - cov[i, l] * c) / det
                reach[i, 1] = (cov[i, l] * v - cov[i, j] * c) / det
            for i in range(m):
                for h in range(i + 1):
                    known = cov[h, j] * reach[i, 0] + cov[h, l] * reach[i, 1]
                    V[i, h] = cov[i, h] - known
                    V_d[i, h] = cov[i, h] - 2.0 * known
                    for x in range(2):
                        y = cov[j, j] if x == 0 else cov[l, l]
                        V_d[i, h] += reach[i, x] * (y * reach[h, x] + c * reach[h, 1 - x])
                    V[h, i] = V[i, h]
            error, error_d = t.constants[1 if first == 0 else 0] ** 2 + t.noise, 0.0
            for i in range(first, m):
                for h in range(first, i + 1):
                    for x in range(t.counts[i]):
                        v_i = V[i, i] + t.inflations[i, x]
                        for y in range(t.counts[h]):
                            v_h = V[h, h] + t.inflations[h, y]
                            weight = t.coefs[i, x] * t.coefs[h, y] * 2.0 / math.pi
                            if i != h:
                                weight *= 2.0
                            scale = math.sqrt(v_i * v_h)
                            rho = V[i, h] / scale
                            rho_d = V_d[i, h] / scale - 0.5 * rho * (V_d[i, i] / v_i + V_d[h, h] / v_h)
                            factor = weight / math.sqrt(1.0 - rho * rho)
                            error += weight * math.asin(rho)
                            error_d += factor * rho_d
                            if tangent:
                                factor *= density / scale
                                for n in range(3):
                                    e, f = (j, l, j)[n], (j, l, l)[n]
                                    up = V[e, i] * (V[f, h] - V[f, i] * V[i, h] / v_i)
                                    out[2 + n] += factor * (up + V[e, h] * (V[f, i] - V[f, h] * V[i, h] / v_h))
            out[0] += density * error
            out[1] += 2.0 * density * (density_d * error + error_d)
            out[2] += density * error * V[j, j]
            out[3] += density * error * V[l, l]
            out[4] += density * error * V[j, l]


@kernel
def link_block(t, first, kind, j, l, cov):
    """E[f_j f_l (e² + Δ)] for the pair of functions `kind` of the students j and l; kind 3: 2 E[s_j s_l e ẽ]."""
    f_j = (SLOPE, EULER_SLOPE, SLOPE, SLOPE, XX_SLOPE, SLOPE, X_SLOPE)[kind]
    f_l = (SLOPE, SLOPE, EULER_SLOPE, SLOPE, SLOPE, XX_SLOPE, X_SLOPE)[kind]
    total = 0.0
    if kind != 3 and t.noise > 0.0:
        total += t.noise * product_mean(t, cov, f_j, j, f_l, l, ONE, j, ONE, j)
    for i in range(first, len(cov)):
        f_i, a_i = member(t, i, 1 if kind == 3 else 0)
        for h in range(first, len(cov) if kind == 3 else i + 1):
            f_h, a_h = member(t, h, 0)
            weight = a_i * a_h if kind != 3 and h == i else 2.0 * a_i * a_h
            total += weight * product_mean(t, cov, f_j, j, f_l, l, f_i, i, f_h, h)
    return t.output[j] * t.output[l] * total


@kernel
def gradient(t, j, i, cov):
    """E[s_j' u_i] and E[s_j u_i']."""
    f_i, a_i = member(t, i, 0)
    d_i, _ = member(t, i, 2)
    a_i *= t.output[j]
    curve = a_i * product_mean(t, cov, CURVE, j, f_i, i, ONE, j, ONE, j)
    return curve, a_i * product_mean(t, cov, SLOPE, j, d_i, i, ONE, j, ONE, j)


@kernel
def add_gradient(t, j, i, curve, slope, G):
    """Add to G what E[s_j' u_i] and E[s_j u_i'] contribute."""
    G[j, j] += curve
    for b in range(G.shape[1]):
        G[j, b] += slope * t.lift[i, b]


@kernel
def times_omega(G, omega, A):
    """A = GΩ."""
    for j in range(len(G)):
        for b in range(len(omega)):
            A[j, b] = 0.0
            for i in range(len(omega)):
                A[j, b] += G[j, i] * omega[i, b]


@kernel
def erf_moments(t, square, tangent, omega, G, A, D, Z, F, H):
    """See `hdsgd.moments._dispatch_kernels.moments`; all functions are sums of erfs."""
    p, m = len(t.output), len(t.lift)
    first = 0 if square else p
    cov = extended(t, omega)
    reach, V, V_d, out = np.empty((m, 2)), np.empty((m, m)), np.empty((m, m)), np.empty(5)
    for j in range(p):
        for b in range(len(omega)):
            G[j, b] = 0.0
        for i in range(first, m):
            curve, slope = erf_gradient(t, j, i, cov)
            add_gradient(t, j, i, curve, slope, G)
        for l in range(j + 1):
            erf_block(t, first, tangent, j, l, cov, reach, V, V_d, out)
            D[j, l], D[l, j] = out[0], out[0]
            Z[j, l], Z[l, j] = out[1], out[1]
            if tangent:
                F[j, l], F[l, j] = out[2], out[3]
                H[j, l], H[l, j] = out[4], out[4]
    times_omega(G, omega, A)


@kernel
def erf_risk(t, omega):
    """½E[(y - f)²] of sums of erfs."""
    cov = extended(t, omega)
    total = t.noise + t.constants[1] ** 2
    for i in range(len(cov)):
        for h in range(i + 1):
            total += (1.0 if i == h else 2.0) * erf_pair(t, cov, i, h)
    return 0.5 * total


@kernel
def link_moments(t, square, tangent, omega, G, A, D, Z, F, H):
    """See `hdsgd.moments._dispatch_kernels.moments`."""
    p, m = len(t.output), len(t.lift)
    first = 0 if square else p
    cov = extended(t, omega)
    for j in range(p):
        for b in range(len(omega)):
            G[j, b] = 0.0
        for i in range(first, m):
            curve, slope = gradient(t, j, i, cov)
            add_gradient(t, j, i, curve, slope, G)
        for l in range(j + 1):
            Z[j, l] = 0.0
            for kind in range(7 if tangent else 4):
                value = link_block(t, first, kind, j, l, cov)
                if kind == 0:
                    D[j, l], D[l, j] = value, value
                elif kind < 4:
                    Z[j, l] += value
                elif kind == 4:
                    F[j, l] = value
                elif kind == 5:
                    F[l, j] = value
                else:
                    H[j, l], H[l, j] = value, value
            Z[l, j] = Z[j, l]
    times_omega(G, omega, A)


@kernel
def link_risk(t, omega):
    """½E[(y - f)²]."""
    cov = extended(t, omega)
    total = t.noise
    for i in range(len(cov)):
        for h in range(i + 1):
            f_i, a_i = member(t, i, 0)
            f_h, a_h = member(t, h, 0)
            weight = a_i * a_h if i == h else 2.0 * a_i * a_h
            total += weight * product_mean(t, cov, f_i, i, f_h, h, ONE, i, ONE, i)
    return 0.5 * total
