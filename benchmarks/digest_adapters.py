"""The calls of hdsgd that `digests.py` makes, and the only ones: plain values in, raw arrays out.

A problem is a dict: target and activation as text; optionally gram, width, second_layer, noise, algorithm, loss,
constraint and the switch_* options.  An initial distribution is its name or a dict of its options.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: What a setting yields: arrays, numbers or texts by name.
Arrays = dict[str, Any]

#: Passed to whatever runs on several threads.
THREADS: dict[str, int | None] = {"threads": None}

#: Coordinates that only count.
_COUNTERS = {"replica", "student", "student_2", "teacher", "point", "draw", "eigenvalue"}


def _problem(
    target: str,
    activation: str,
    *,
    gram: Any = None,
    width: int = 1,
    second_layer: Sequence[float] | None = None,
    algorithm: str | None = None,
    **options: Any,
) -> Any:
    from hdsgd import Problem, Student, Target

    parts = Target(target, gram), Student(activation, width, second_layer)
    return Problem(*parts, **options) if algorithm is None else Problem.from_algorithm(algorithm, *parts, **options)


def _initial(initial: str | Mapping[str, Any] | None) -> Any:
    from hdsgd import Initial

    return Initial(**initial) if isinstance(initial, Mapping) else initial or "random"


def _taken(options: dict[str, Any], *names: str) -> dict[str, Any]:
    """Those of the options, which lose them."""
    return {name: options.pop(name) for name in names if name in options}


def _scaling(options: dict[str, Any]) -> Any:
    from hdsgd import Scaling

    return Scaling(**_taken(options, "mu", "delta", "n0", "gamma0", "batch", "lr"))


def _saved(options: dict[str, Any]) -> Any:
    from hdsgd import SaveAt

    taken = _taken(options, "save_points", "save_spacing")
    return SaveAt(**{name.removeprefix("save_"): value for name, value in taken.items()})


def _starts(Q0: Any, M0: Any) -> list[Any]:
    """Explicit overlaps, one start for each replica."""
    from hdsgd import Initial

    Q, M = (np.asarray(array).reshape(-1, *np.shape(array)[-2:]) for array in (Q0, M0))
    return [Initial(M=m.tolist(), Q=q.tolist()) for q, m in zip(Q, M, strict=True)]


def _variables(dataset: Any, prefix: str = "") -> Arrays:
    """Values of the variables of a Dataset, and of the coordinates that are numbers and do not only count."""
    arrays = {str(name): dataset[name].values for name in dataset.variables if name not in _COUNTERS}
    return {prefix + name: array for name, array in arrays.items() if array.dtype.kind in "biuf"}


def _numbers(value: Any, name: str) -> Arrays:
    """The numbers of nested JSON values as arrays, texts left out; None is nan."""
    if isinstance(value, Mapping):
        items = [(f"{name}.{key}" if name else str(key), part) for key, part in value.items()]
    elif isinstance(value, str):
        return {}
    elif isinstance(value, Sequence):
        if all(isinstance(part, bool | int | float) for part in value):
            return {name: np.array(value, dtype=None if value else np.float64)}
        items = [(f"{name}.{n}", part) for n, part in enumerate(value)]
    else:
        return {name: math.nan if value is None else value}
    return {key: array for item, part in items for key, array in _numbers(part, item).items()}


def simulate(problem: Mapping[str, Any], *, initial: Any = None, diversity: bool = False, **options: Any) -> Arrays:
    """Replicas of a run, optionally with the gradient diversity along it."""
    import hdsgd

    data = hdsgd.simulate(
        _problem(**problem),
        scaling=_scaling(options),
        save=_saved(options),
        initial=_initial(initial),
        **THREADS,
        **options,
    )
    return _variables(hdsgd.add_diversity(data) if diversity else data)


def run(
    problem: Mapping[str, Any],
    *,
    advances: Sequence[int],
    restored: bool = False,
    stop_at_recovery: bool = False,
    max_cost: float = math.inf,
    initial: Any = None,
    replica: int = 0,
    **options: Any,
) -> Arrays:
    """One replica after each of several advances: steps, recovery, cost, step of the switch of the loss, overlaps.

    If `restored`, each advance is taken by a new run that is restored from the state of the one before.
    """
    from hdsgd.problem.initial import as_initial
    from hdsgd.simulation.cells import Cell

    cell = Cell(_problem(**problem), initial=as_initial(_initial(initial)), **options)
    now, rows = cell.replica(replica), []
    for steps in advances:
        if restored:
            before, now = now, cell.replica(replica)
            now.restore(before.state())
        now.advance(steps, stop_at_recovery=stop_at_recovery, max_cost=max_cost)
        ends = [-1 if step is None else step for step in (now.recovery_step, now.switch_step)]
        rows.append((np.array([now.step, *ends, now.cost, now.exhausted, now.diverged]), *now.overlaps()))
    names = ("progress", "M", "Q", "misalignment")
    return {name: np.array(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def phase_diagram(problem: Mapping[str, Any], *, initial: Any = None, **options: Any) -> Arrays:
    """A phase diagram and what is read from it: best exponents and samples, agreement with theory, other fits."""
    import hdsgd
    from hdsgd.analysis.boundaries import compare_boundaries

    rules: list[Any] = list(options.pop("algorithms", hdsgd.phase_diagram.__kwdefaults__["algorithms"]))
    halves = {half: options.pop(half, None) for half in ("loss", "constraint")}
    if any(halves.values()):
        known = {name: hdsgd.Problem.from_algorithm(name, "he2", "he2") for name in rules}
        rules = [
            hdsgd.Algorithm(name, "", halves["loss"] or made.loss, halves["constraint"] or made.constraint)
            for name, made in known.items()
        ]
    data = hdsgd.phase_diagram(
        _problem(**problem),
        plane=hdsgd.Plane(**_taken(options, "mu", "delta", "n0", "gamma0")),
        algorithms=rules,
        stop=hdsgd.StopRule(**_taken(options, "eta", "max_steps", "max_cost")),
        initial=_initial(initial) if initial is not None else None,
        workers=hdsgd.Workers(**THREADS),
        **options,
    )
    arrays = {
        **_variables(data),
        **_variables(hdsgd.best_exponents(data), "best exponents."),
        **_variables(hdsgd.best_samples(data), "best samples."),
    }
    if several := data.sizes["dim"] > 1:
        arrays |= _variables(hdsgd.fit_exponents(data, log_correction=False), "without logarithm.")
    for name in map(str, data["algorithm"].values):
        arrays |= _numbers(compare_boundaries(data, name) or {}, f"boundaries.{name}")
        if several:
            arrays |= _numbers(hdsgd.compare_exponents(data, name) or {}, f"exponents.{name}")
    return arrays


def compare(problem: Mapping[str, Any], *, initial: Any = None, **options: Any) -> Arrays:
    """Simulations beside ODE and mean map."""
    import hdsgd

    options = {"gamma0": 1.0, **options}
    return _variables(
        hdsgd.compare(_problem(**problem), scaling=_scaling(options), initial=_initial(initial), **THREADS, **options)
    )


def ode(problem: Mapping[str, Any], *, Q0: Any, M0: Any, save: Any = 100, **options: Any) -> Arrays:
    """The ODE of the overlaps; with the gradient diversity where the dimension is known."""
    import hdsgd

    if options.pop("finite_d", False):
        options["regime"] = "finite d"
    options = {"gamma0": 1.0, "dim": None, **options}
    data = hdsgd.integrate_ode(
        _problem(**problem),
        scaling=_scaling(options) if {"mu", "lr"} & options.keys() else _scaling({**options, "mu": 0.0, "delta": 1.0}),
        initial=_starts(Q0, M0),
        save=_saved({"save_points": save}),
        integrator=hdsgd.Integrator(**_taken(options, "method", "rtol")),
        **{name: value for name, value in options.items() if name not in ("gamma0", "n0")},
    )
    return _variables(hdsgd.add_diversity(data) if options["dim"] else data)


def mean_map(problem: Mapping[str, Any], *, Q0: Any, M0: Any, save: Any = 100, **options: Any) -> Arrays:
    """The mean of one step iterated, with the gradient diversity."""
    import hdsgd

    data = hdsgd.mean_map(
        _problem(**problem), scaling=_scaling(options), initial=_starts(Q0, M0), save=_saved({"save_points": save}),
        **options,
    )  # fmt: skip
    return _variables(hdsgd.add_diversity(data))


def step_mean(problem: Mapping[str, Any], Q: Any, M: Any, **options: Any) -> Arrays:
    """Mean overlaps after one step."""
    from hdsgd.dynamics.maps import step_mean

    return dict(zip(("Q", "M"), step_mean(_problem(**problem), Q, M, **options), strict=True))


def moments(problem: Mapping[str, Any], Q: Any, M: Any, *, dim: int = 100) -> Arrays:
    """Population moments, risk and gradient diversity for both losses."""
    from hdsgd.moments.population import gradient_diversity, population_moments, population_risk

    made = _problem(**problem)
    arrays = {"population_risk": population_risk(made, Q, M)}
    for loss in ("square", "correlation"):
        found = population_moments(made, Q, M, loss)._asdict()
        arrays |= {f"{loss}.{name}": array for name, array in found.items()}
        arrays[f"{loss}.diversity"] = gradient_diversity(made, Q, M, dim, loss)
    return arrays


def predict(problem: Mapping[str, Any], dim: int, **options: Any) -> Arrays:
    """The numbers of a prediction."""
    from hdsgd import predict

    found = predict(_problem(**problem), dim, **options).to_dict()
    return _numbers({key: value for key, value in found.items() if key != "problem"}, "")


def critical_prefactor(problem: Mapping[str, Any], dim: int | None = None, **options: Any) -> Arrays:
    """Where drift and noise balance at initialisation."""
    from dataclasses import asdict

    from hdsgd.theory.prefactors import critical_prefactor

    found = critical_prefactor(_problem(**problem), dim, **options)
    return _numbers({**asdict(found), "reliable": found.reliable}, "")


def plane(ell: int, algorithm: str, *, mu: Any, delta: Any, log_dim: float | None = None) -> Arrays:
    """Exponents over the (mu, delta) plane, the best of each mu, and the regime as its number."""
    from hdsgd.theory import phases

    mu, delta = np.asarray(mu), np.asarray(delta)
    regimes = phases.regime(mu[:, None], delta)
    return {
        "exponent": phases.exponent(mu[:, None], delta, ell, algorithm, log_dim=log_dim),
        "best_exponent": phases.best_exponent(mu, ell, algorithm),
        "regime": np.searchsorted(sorted(phases.REGIMES), regimes).astype(np.int64),
    }


def lines(ell: int, algorithm: str, **box: Any) -> Arrays:
    """Boundaries over the plane, within mu_range and delta_range."""
    from hdsgd.theory.phases import boundaries

    found = boundaries(ell, algorithm, **box)
    return {f"{n} {line.kind}": np.array([line.mu, line.delta]) for n, line in enumerate(found)}


def optimal_point(ell: int, algorithm: str, *, one_step: bool = False) -> Arrays:
    """The optimal point of the plane, or that of one giant step."""
    from dataclasses import asdict

    from hdsgd.theory.phases import optimal_point

    return asdict(optimal_point(ell, algorithm, one_step=one_step))


def leaps(target: str, gram: Any = None) -> Arrays:
    """Leap sequence and information exponent of a target."""
    from hdsgd import Target
    from hdsgd.theory.leaps import information_exponent, leaps

    made = Target(target, gram)
    return {"information": information_exponent(made), **_numbers(leaps(made).to_dict(), "")}


def learnability(problem: Mapping[str, Any]) -> Arrays:
    """What a student can learn of a target."""
    from hdsgd.theory.leaps import learnability

    found = learnability(_problem(**problem))
    sequences = {name: getattr(found, name).to_dict() for name in ("target", "leaps")}
    orders = {name: list(getattr(found, name)) for name in ("orders", "target_orders")}
    return {**_numbers({"exponent": found.exponent, **orders, **sequences}, ""), "unlearnable": found.unlearnable}


def hermite(problem: Mapping[str, Any], order: int) -> Arrays:
    """Hermite coefficients of the activation; form of the target of one order, and the direction strongest in it."""
    from hdsgd.theory.hermite import hermite_coefficients, hermite_form, strongest_direction

    made = _problem(**problem)
    form = sorted(hermite_form(made.target, order).terms.items())
    value, direction = strongest_direction(made.target, order)
    return {
        "coefficients": np.array([float(c) for c in hermite_coefficients(made.student, 12)]),
        "form exponents": np.array([exponents for exponents, _ in form]),
        "form coefficients": np.array([float(c) for _, c in form]),
        "value": value,
        "direction": direction,
    }


def scaling(dims: Sequence[int], mu: Sequence[float], delta: Sequence[float], n0: float, gamma0: float) -> Arrays:
    """Batch sizes and learning rates of powers of the dimension."""
    from hdsgd.problem.scaling import batch_size, learning_rate

    return {
        "batch": np.array([[batch_size(dim, x, n0) for x in mu] for dim in dims]),
        "lr": np.array([[learning_rate(dim, x, gamma0) for x in delta] for dim in dims]),
    }


def fit_lines(x: Any, low: Any, high: Any, used: Any) -> Arrays:
    """Lines through interval-censored logarithms of times."""
    from hdsgd.analysis.censored import fit_lines

    return fit_lines(x, low, high, used)._asdict()


def initial_state(problem: Mapping[str, Any], initial: Any, *, dim: int, seed: int, count: int) -> Arrays:
    """Coordinates of independent students drawn from an initial law, and the overlaps of one."""
    from hdsgd.problem.initial import as_initial, draw_overlaps

    law, made = as_initial(_initial(initial)), _problem(**problem)
    M, Q = draw_overlaps(made, law, dim, seed)
    return {"X": law.draw(made, dim, np.random.default_rng(seed), count), "M": M, "Q": Q}


def seeds(seed: int, specification: Mapping[str, Any], addresses: Sequence[tuple[int, ...]], words: int) -> Arrays:
    """Words of the seed of a cell and of its children, one by one and together."""
    from hdsgd.seeds import Children, cell_seed, child

    parent = cell_seed(seed, specification)
    return {
        "entropy": np.asarray(parent.entropy),
        "parent": parent.generate_state(words, np.uint64),
        "children": np.array([child(parent, *address).generate_state(words, np.uint64) for address in addresses]),
        "together": Children(parent, addresses).generate_state(words),
    }


def normals(seed: int, counts: Sequence[int], *, single: bool = False) -> Arrays:
    """Standard normals of one stream, drawn so many at a time, in double or single precision."""
    from hdsgd.engines import _normal_kernels as kernels
    from hdsgd.engines import _stream_types as streams

    new, fill = (streams.new_stream32, kernels.normals32) if single else (streams.new_stream, kernels.normals)
    stream = new(np.random.SeedSequence(seed))
    parts = [streams.aligned_empty(count, np.float32 if single else np.float64) for count in counts]
    for part in parts:
        fill(stream, part)
    return {"normals": np.concatenate(parts)}


def chi_squares(seed: int, degrees: Sequence[float], count: int) -> Arrays:
    """Chi-squared variates, and single normals between them, of one stream."""
    from hdsgd.engines import _normal_kernels as kernels
    from hdsgd.engines._stream_types import new_stream

    stream = new_stream(np.random.SeedSequence(seed))
    drawn = [[(kernels.chi_square(stream, df), kernels.next_normal(stream)) for df in degrees] for _ in range(count)]
    return {"variates": np.array(drawn)}


def network_diversity(spec: Mapping[str, Any], *, seed: int = 0) -> Arrays:
    """Gradient statistics of networks at random weights."""
    from hdsgd import Workers
    from hdsgd.networks import Diversity, diversity

    return _variables(diversity(Diversity(**spec), seed=seed, workers=Workers(**THREADS)))


def network_theorem(spec: Mapping[str, Any], *, seed: int = 0) -> Arrays:
    """Monte Carlo check of a theorem on gradient diversity."""
    from hdsgd import Workers
    from hdsgd.networks import TheoremCheck, theorem_check

    return _variables(theorem_check(TheoremCheck(**spec), seed=seed, workers=Workers(**THREADS)))


def network_saturation(spec: Mapping[str, Any], *, seed: int = 0) -> Arrays:
    """Convergence exponents against batch size."""
    from hdsgd import Workers
    from hdsgd.networks import Saturation, saturation

    return _variables(saturation(Saturation(**spec), seed=seed, workers=Workers(**THREADS)))


def network_epochs(spec: Mapping[str, Any], *, seed: int = 0) -> Arrays:
    """Epochs to a target against batch size."""
    from hdsgd import Workers
    from hdsgd.networks import Epochs, epochs

    return _variables(epochs(Epochs(**spec), seed=seed, workers=Workers(**THREADS)))


def network_widths(budget: int, depths: Sequence[int], d_in: int, d_out: int) -> Arrays:
    """Widths of networks of a fixed budget of parameters."""
    from hdsgd.networks import fixed_budget_family

    return {"widths": np.array([net.width for net in fixed_budget_family(budget, tuple(depths), d_in, d_out)])}


def network_bridge(problem: Mapping[str, Any], **options: Any) -> Arrays:
    """Gradient diversity of the Gaussian model beside that of finitely many examples."""
    from hdsgd.networks.bridge import bridge

    return _variables(bridge(_problem(**problem), **options))
