"""A request that is not answered with a result: status, code for programs, sentence for people."""

from typing import Any

__all__ = ["RefusalError"]


class RefusalError(Exception):
    """Ends a request.

    Attributes:
        status: of HTTP.
        code: for programs; one word.
        message: for people.
        headers: of the answer.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The answer, as JSON values."""
        return {"error": {"code": self.code, "message": self.message}}
