"""Deterministic dynamics of the overlaps: ODEs of the limit d to infinity (`ode`), mean map at finite d (`maps`).

May import problems, moments, theory and the schema of results.
"""
