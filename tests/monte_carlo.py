"""How far means of samples may be from what they should be: one false-alarm rate for all that a test compares."""

from scipy.special import ndtri

FALSE_ALARM = 1e-6  # of one Monte Carlo test, whatever the number of values it compares (normal approximation)


def threshold(values):
    """The largest deviation, in standard errors, among so many values."""
    return -ndtri(FALSE_ALARM / (2 * values))
