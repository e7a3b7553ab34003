"""Commands, called in this process."""

import pytest
from hdsgd_cli.main import main


def call(capsys, *args):
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as exit_:
        main([str(a) for a in args])
    captured = capsys.readouterr()
    return exit_.value.code, captured.out, captured.err
