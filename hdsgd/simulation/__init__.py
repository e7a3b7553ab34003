"""Monte Carlo: cells (`cells`), runs with their trajectories (`runs`), and runs beside theory (`comparison`).

May import everything below it, engines and dynamics included.
"""
