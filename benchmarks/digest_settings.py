"""All settings of `digests.py`, by name: small problems and plain values, given to adapters."""

from __future__ import annotations

from digest_networks import network_settings
from digest_problems import Settings
from digest_simulations import diagram_settings, run_settings, seed_settings, simulation_settings
from digest_theory import dynamics_settings, moment_settings, theory_settings


def all_settings() -> Settings:
    groups = (
        simulation_settings(), run_settings(), diagram_settings(), dynamics_settings(), moment_settings(),
        theory_settings(), seed_settings(), network_settings(),
    )  # fmt: skip
    return {name: setting for group in groups for name, setting in group.items()}
