"""Names that 1.0.0 exported. Nothing new is added here."""

from __future__ import annotations

import typing as t

from .settings import str2bool as str2bool

__all__ = ["InstanceProxy", "str2bool"]


class InstanceProxy:
    """Stands for another object, ``_self``: it has its class and its attributes."""

    def __init__(self, instance: t.Any) -> None:
        self._self = instance

    @property
    def __class__(self) -> type:
        """The class of the other object."""
        return t.cast(type, self._self.__class__)

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise TypeError(f"the class of a proxy cannot be set to {value!r}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._self!r}>"

    def __getattr__(self, name: str) -> t.Any:
        if name == "_self":
            raise AttributeError(name)
        return getattr(self._self, name)
