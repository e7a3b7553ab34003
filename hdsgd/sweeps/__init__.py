"""Phase diagrams: the plan of a sweep, its cells, and what they are put together to.

May import simulation and analysis.
"""
