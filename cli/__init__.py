"""The ``hdsgd`` command: one thin file per command, shared options once; everything else is in the library.

``commands`` has a row for each command, ``base`` what commands and options are made of, ``types`` the types of values,
``options`` the options that several commands share, ``outputs`` what becomes of the files they write.
"""

from __future__ import annotations

from hdsgd_cli.commands import register_command

__all__ = ["register_command"]
