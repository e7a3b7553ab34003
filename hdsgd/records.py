"""Frozen specifications as JSON: the text that identifies a run, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Self

from hdsgd.errors import SpecificationError, choice

__all__ = ["Record"]


class Record:
    """JSON round trip shared by the three dataclasses (each a frozen dataclass of plain values or records)."""

    def to_dict(self) -> dict[str, Any]:
        """The specification as plain JSON values."""
        result = {}
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            result[f.name] = value.to_dict() if isinstance(value, Record) else value
        return result

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces.  Equal specifications give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON, in hexadecimal."""
        return self.digest_of(self.to_json())

    @staticmethod
    def digest_of(text: str) -> str:
        """sha256 of a canonical JSON text, in hexadecimal."""
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises
        ------
        SpecificationError
            On unknown keys, naming the known ones, and on invalid values.
        """
        if not isinstance(data, Mapping):
            raise SpecificationError(f"{cls.__name__} must be a mapping of its fields, not {data!r}")
        names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        for key in data:
            choice(f"{cls.__name__} field", key, names)
        try:
            return cls(**data)
        except TypeError as error:
            raise SpecificationError(f"{cls.__name__}: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`."""
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, TypeError) as error:
            raise SpecificationError(f"{cls.__name__} is not valid JSON: {error}") from None
        if not isinstance(data, dict):
            raise SpecificationError(f"{cls.__name__} JSON must be an object, not {type(data).__name__}")
        return cls.from_dict(data)
