"""What a set of photos is too small for: said in a sentence and handed on, so that nothing else stops."""

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class NotPossible(ValueError):  # noqa: N818 - the name is what the reader sees
    """Something that these photos are too few for; the message says what is lacking and what would do.

    It is a value, too: tables and figures show it in the place of what could not be had.
    """

    def __str__(self) -> str:
        reason = super().__str__()
        return reason if reason.startswith("not possible") else f"not possible: {reason}"

    @property
    def fingerprint(self) -> str:
        """What a stage that takes it is made of, see `fingerprints`."""
        return str(self)

    def _repr_markdown_(self) -> str:
        return f"*{self}*"


def attempt(function: Callable[..., T], *args: Any, **kwargs: Any) -> T | NotPossible:
    """What the function gives, or why that is not possible; a reason among the arguments is handed on."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, NotPossible):
            return value
    try:
        return function(*args, **kwargs)
    except NotPossible as reason:
        return reason
