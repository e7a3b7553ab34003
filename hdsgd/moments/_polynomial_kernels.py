# mypy: ignore-errors
"""Kernels of the population moments of polynomial problems.

Fields ``x = (λ, λ*) ~ N(0, Ω)`` of size ``p + k``.  The error is a sum of functions of one field each,
``e = Σ_i u_i(x_i)``: the students ``u_j = (a_j/p) σ``, and minus the target, a sum of ridge functions of ``K`` linear
forms of ``λ*`` (`hdsgd.moments.polynomial.ridge_form`; for an additive target the forms are the directions themselves).
Everything follows from one identity for polynomials (or any smooth function) of jointly Gaussian fields,

    E[Π_i f_i(x_i)] = Σ_{n_ij >= 0, i<j} Π_i E[f_i^{(Σ_j n_ij)}(x_i)] Π_{i<j} Ω_ij^{n_ij} / n_ij!,

whose sum is finite for polynomials and which never inverts Ω, so that collinear fields are nothing special.

``Z_jl = E[x·∇(c_j c_l)]`` is the Euler derivative of ``D``: scaling Ω by ``t`` scales ``x`` by ``sqrt(t)``, hence
``Z = 2 dD(tΩ)/dt`` at ``t = 1``.  In the sum above it multiplies each term by ``2 n_ij`` for every edge and replaces
``E[f^{(n)}]`` by ``Ω_ii E[f^{(n+2)}]`` at every node, one at a time; names ending in ``_d`` hold that derivative.

Index legend: j, l students; i, h fields of the error; a, b edges from j, l to a field of the error; n edges between
the two fields of the error; c edges between j and l; r, s teacher directions; m = p + K.
"""

import numpy as np

from hdsgd._compile import kernel


@kernel
def derivative_means(coefs, shift, variance, factor, out):
    """out[n] = factor E[f^{(n)}(x)] for x ~ N(0, variance), f = Σ_r coefs[r] x^(r + shift); zero beyond the degree.

    With ``r = n + 2h``: ``E[f^{(n)}] = Σ_h f_r r!/h! (variance/2)^h``.
    """
    size = len(coefs) + shift
    first = 1.0  # n!
    for n in range(len(out)):
        if n > 0:
            first *= n
        total = 0.0
        weight = first
        for h in range((size - n + 1) // 2):
            r = n + 2 * h
            if r >= shift:
                total += coefs[r - shift] * weight
            weight *= (r + 1.0) * (r + 2.0) / (h + 1.0) * 0.5 * variance
        out[n] = factor * total


@kernel
def pair(f, f_shift, g, g_shift, cov):
    """E[f^{(f_shift)}(x) g^{(g_shift)}(y)] from the derivative means of f, g and the covariance of x and y."""
    total = 0.0
    weight = 1.0
    for n in range(min(len(f) - f_shift, len(g) - g_shift)):
        if n > 0:
            weight *= cov / n
        total += weight * f[n + f_shift] * g[n + g_shift]
    return total


@kernel
def extended(t, omega):
    """Covariance lift Ω liftᵀ of the fields that the functions u_i act on, (m, m)."""
    if t.plain:
        return omega
    m, size = t.lift.shape
    half, cov = np.zeros((m, size)), np.zeros((m, m))
    for i in range(m):
        for b in range(size):
            if t.lift[i, b] != 0.0:
                for r in range(size):
                    half[i, r] += t.lift[i, b] * omega[b, r]
    for i in range(m):
        for h in range(m):
            for b in range(size):
                cov[i, h] += half[i, b] * t.lift[h, b]
    return cov


@kernel
def field_means(t, cov, size):
    """E[u_i^{(n)}(x_i)] for the m functions u_i whose sum is f - h*, shape (m, size)."""
    g = np.empty((len(cov), size))
    for i in range(len(cov)):
        derivative_means(t.functions[i], 0, cov[i, i], 1.0, g[i])
    return g


@kernel
def quadratic_parts(t, square, omega):
    """𝒜Ω, shape (p+k, p+k), and c0 of the error ``e = xᵀ𝒜x + c0`` of an even quadratic problem."""
    p = len(t.output)
    k = len(t.form)
    c0 = -t.form_constant
    AO = np.zeros((p + k, p + k))
    if square:
        for j in range(p):
            c0 += t.output[j] * t.activation[0]
            weight = t.output[j] * t.activation[2]
            for b in range(p + k):
                AO[j, b] = weight * omega[j, b]
    for r in range(k):
        for s in range(k):
            if t.form[r, s] != 0.0:
                for b in range(p + k):
                    AO[p + r, b] -= t.form[r, s] * omega[p + s, b]
    return AO, c0


@kernel
def traces(AO):
    """tr(𝒜Ω) and tr((𝒜Ω)²)."""
    first, second = 0.0, 0.0
    for i in range(len(AO)):
        first += AO[i, i]
        for b in range(len(AO)):
            second += AO[i, b] * AO[b, i]
    return first, second


@kernel
def quadratic_moments(t, square, tangent, omega, G, A, D, Z, F, H):
    """Closed matrix form for σ = αx² + c and h* = λ*ᵀBλ* + b; see `hdsgd.moments.population.population_moments`."""
    p, size = len(t.output), len(omega)
    AO, c0 = quadratic_parts(t, square, omega)
    S1, S2 = traces(AO)
    tau = S1 + c0
    X1 = np.zeros((p, size))  # first p rows of Ω𝒜Ω and Ω𝒜Ω𝒜Ω
    X2 = np.zeros((p, size))
    for j in range(p):
        for i in range(size):
            for b in range(size):
                X1[j, b] += omega[j, i] * AO[i, b]
    for j in range(p):
        for i in range(size):
            for b in range(p):
                X2[j, b] += X1[j, i] * AO[i, b]
    noise = c0 * c0 + t.noise
    for j in range(p):
        s_j = 2.0 * t.activation[2] * t.output[j]
        for b in range(size):
            A[j, b] = s_j * (tau * omega[j, b] + 2.0 * X1[j, b])
            G[j, b] = 0.0
        if square:  # G = s_j (τ I + 2Ω𝒜), first p rows; A = GΩ
            for l in range(p):
                G[j, l] = 2.0 * s_j * omega[j, l] * t.output[l] * t.activation[2]
        for r in range(size - p):
            for s in range(size - p):
                G[j, p + s] -= 2.0 * s_j * omega[j, p + r] * t.form[r, s]
        G[j, j] += s_j * tau
        for l in range(p):
            s = s_j * 2.0 * t.activation[2] * t.output[l]
            six = (S1 * S1 + 2.0 * S2) * omega[j, l] + 4.0 * S1 * X1[j, l] + 8.0 * X2[j, l]
            four = c0 * (S1 * omega[j, l] + 2.0 * X1[j, l])
            D[j, l] = s * (six + 2.0 * four + noise * omega[j, l])
            Z[j, l] = s * (6.0 * six + 8.0 * four + 2.0 * noise * omega[j, l])
            if tangent:  # E[e² x_j² x_j x_l] and E[e² x_j² x_l²] from the tilted covariance Ω + 2θX1 + 4θ²X2
                z1 = tau
                z2 = 0.5 * z1 * z1 + S2
                d0, d1, d2 = omega[j, j], 2.0 * X1[j, j], 4.0 * X2[j, j]
                o0, o1, o2 = omega[j, l], 2.0 * X1[j, l], 4.0 * X2[j, l]
                e0, e1, e2 = omega[l, l], 2.0 * X1[l, l], 4.0 * X2[l, l]
                P0, P1, P2 = 3.0 * d0 * o0, 3.0 * (d0 * o1 + d1 * o0), 3.0 * (d0 * o2 + d1 * o1 + d2 * o0)
                F[j, l] = s * (2.0 * (P2 + z1 * P1 + z2 * P0) + t.noise * P0)
                P0 = d0 * e0 + 2.0 * o0 * o0
                P1 = d0 * e1 + d1 * e0 + 4.0 * o0 * o1
                P2 = d0 * e2 + d1 * e1 + d2 * e0 + 4.0 * o0 * o2 + 2.0 * o1 * o1
                H[j, l] = s * (2.0 * (P2 + z1 * P1 + z2 * P0) + t.noise * P0)


@kernel
def powers(row, count, out):
    """out[a, i] = row[i]^a / a!."""
    for i in range(len(row)):
        out[0, i] = 1.0
        for a in range(1, count):
            out[a, i] = out[a - 1, i] * row[i] / a


@kernel
def error_block(first, edges, weights, g, g_d, pow_j, pow_l, V, V_d, T, Y, Y_d):
    """Y[ab, a'b'] = Σ over both fields of the error and the edges between them; Y_d its Euler derivative.

    ``V[ab, i] = E[u_i^{(a+b+n)}] Ω_ji^a/a! Ω_li^b/b!``, ``T = (Ω^n/n!) V``, ``Y = Σ_n V Tᵀ``.
    """
    count, m, top = len(edges), g.shape[0], len(weights)
    for x in range(count):
        for y in range(x + 1):
            Y[x, y] = 0.0
            Y_d[x, y] = 0.0
    for n in range(top):
        for x in range(count):
            a, b = edges[x, 0], edges[x, 1]
            if a + b + n >= top:
                continue
            for i in range(first, m):
                w = pow_j[a, i] * pow_l[b, i]
                V[x, i] = w * g[i, a + b + n]
                V_d[x, i] = 2.0 * (a + b) * V[x, i] + w * g_d[i, a + b + n]
            for h in range(first, m):
                total = 0.0
                for i in range(first, m):
                    total += weights[n, h, i] * V[x, i]
                T[x, h] = total
            for y in range(x + 1):
                if edges[y, 0] + edges[y, 1] + n >= top:
                    continue
                value, slope = 0.0, 0.0
                for i in range(first, m):
                    value += V[x, i] * T[y, i]
                    slope += V_d[x, i] * T[y, i] + T[x, i] * V_d[y, i]
                Y[x, y] += value
                Y_d[x, y] += slope + 2.0 * n * value


@kernel
def contract(noise, edges, Y, Y_d, cov, variance_j, variance_l, f_j, f_l):
    """E[f_j(x_j) f_l(x_l) (e² + noise)] and its Euler derivative: the sum over edges c of j, l and those to the error.

    `f_j`, `f_l` hold derivative means, with at least two zeros at the end.
    """
    total, slope = 0.0, 0.0
    size = len(f_j) - 2
    weight = 1.0
    for c in range(size):
        if c > 0:
            weight *= cov / c
        for x in range(-1, len(edges)):
            for y in range(min(x, 0), x + 1):
                n, q = c, c
                twice, error, error_d = weight, noise, 0.0  # x = -1: no edges to the error
                if x >= 0:
                    n += edges[x, 0] + edges[y, 0]
                    q += edges[x, 1] + edges[y, 1]
                    error, error_d = Y[x, y], Y_d[x, y]
                    if x != y:
                        twice *= 2.0
                if n < size and q < size:
                    u, v = f_j[n], f_l[q]
                    uv_d = variance_j * f_j[n + 2] * v + variance_l * u * f_l[q + 2]
                    total += twice * u * v * error
                    slope += twice * ((2.0 * c * u * v + uv_d) * error + u * v * error_d)
    return total, slope


@kernel
def polynomial_moments(t, square, tangent, omega, G, A, D, Z, F, H):
    """Any polynomial activation and target, by the sum over edge multiplicities."""
    p, (m, size) = len(t.output), t.lift.shape
    first = 0 if square else p
    slope_size = len(t.activation) - 1  # degree of σ' plus one
    top = t.functions.shape[1]
    cov = extended(t, omega)
    g = field_means(t, cov, top + 3)
    g_d = np.zeros((m, top))
    for i in range(m):
        for n in range(top):
            g_d[i, n] = cov[i, i] * g[i, n + 2]

    # G: E[∂_c c_j] = δ_jc Σ_i E[s_j' u_i] + E[s_j u_c'], s_j = (a_j/p) σ'; A = GΩ.
    for j in range(p):
        for b in range(size):
            G[j, b] = 0.0
            A[j, b] = 0.0
        for i in range(first, m):
            G[j, j] += pair(g[j], 2, g[i], 0, cov[j, i])
            value = pair(g[j], 1, g[i], 1, cov[j, i])
            for b in range(size):
                G[j, b] += value * t.lift[i, b]
        for i in range(size):
            for b in range(size):
                A[j, b] += G[j, i] * omega[i, b]

    reach = slope_size + (2 if tangent else 0)
    count = 0
    edges = np.zeros((reach * reach, 2), dtype=np.int64)
    for a in range(reach):
        for b in range(reach):
            if a + b < top:
                edges[count, 0], edges[count, 1] = a, b
                count += 1
    edges = edges[:count]
    weights = np.empty((top, m, m))
    for i in range(m):
        for h in range(m):
            weight = 1.0
            for n in range(top):
                if n > 0:
                    weight *= cov[i, h] / n
                weights[n, i, h] = weight
    slopes = np.empty(slope_size)
    for n in range(slope_size):
        slopes[n] = (n + 1.0) * t.activation[n + 1]
    kinds = 3 if tangent else 1
    f = np.empty((kinds, p, slope_size + 4))  # derivative means of x^kind s_j
    for kind in range(kinds):
        for j in range(p):
            derivative_means(slopes, kind, cov[j, j], t.output[j], f[kind, j])
    pow_j, pow_l = np.empty((reach, m)), np.empty((reach, m))
    V, V_d, T = np.zeros((count, m)), np.zeros((count, m)), np.zeros((count, m))
    Y, Y_d = np.zeros((count, count)), np.zeros((count, count))
    for j in range(p):
        powers(cov[j], reach, pow_j)
        for l in range(j + 1):
            powers(cov[l], reach, pow_l)
            error_block(first, edges, weights, g, g_d, pow_j, pow_l, V, V_d, T, Y, Y_d)
            for kind in range(4 if tangent else 1):
                x = (0, 2, 0, 1)[kind]
                y = (0, 0, 2, 1)[kind]
                mean, slope = contract(t.noise, edges, Y, Y_d, cov[j, l], cov[j, j], cov[l, l], f[x, j], f[y, l])
                if kind == 0:
                    D[j, l] = mean
                    D[l, j] = mean
                    Z[j, l] = slope
                    Z[l, j] = slope
                elif kind == 1:
                    F[j, l] = mean
                elif kind == 2:
                    F[l, j] = mean
                else:
                    H[j, l] = mean
                    H[l, j] = mean


@kernel
def polynomial_risk(t, omega):
    """½E[(y - f)²] of a polynomial problem."""
    total = t.noise
    cov = extended(t, omega)
    g = field_means(t, cov, t.functions.shape[1])
    for i in range(len(g)):
        total += pair(g[i], 0, g[i], 0, cov[i, i])
        for h in range(i):
            total += 2.0 * pair(g[i], 0, g[h], 0, cov[i, h])
    return 0.5 * total


@kernel
def quadratic_risk(t, omega):
    """½E[(y - f)²] of an even quadratic problem."""
    AO, c0 = quadratic_parts(t, True, omega)
    first, second = traces(AO)
    return 0.5 * (t.noise + (first + c0) ** 2) + second
