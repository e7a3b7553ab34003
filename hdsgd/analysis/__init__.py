"""Phase diagrams read against theory: boundaries, fitted exponents, and the censored regression behind them.

May import theory and results; runs nothing.
"""
