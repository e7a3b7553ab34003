"""Imported by tests that train networks, before what needs the extra: without it they are skipped, and say why."""

import pytest

jax = pytest.importorskip("jax", reason="networks need JAX: pip install 'hdsgd[networks]'")
pytest.importorskip("equinox", reason="networks need Equinox: pip install 'hdsgd[networks]'")
pytest.importorskip("optax", reason="networks need Optax: pip install 'hdsgd[networks]'")
pytest.importorskip("sklearn", reason="digits come with scikit-learn: pip install 'hdsgd[networks]'")
