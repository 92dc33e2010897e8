"""The failures that a user sees. A code decides the exit code; the table comes from the protocol."""

import errno
import re
from functools import partial
from typing import Any

# A slash that begins a path of at least two parts; URLs and fractions such as 3/4 stay as they are.
_ABSOLUTE_PATH = re.compile(r"(?<![\w/.\-])(?!(?<=:)//)/(?:[^\s/'\",;:()\[\]]+/)+([^\s/'\",;:()\[\]]*)")


class TrainerError(Exception):
    """Ends the attempt with an `error` event.

    Args:
        code: a key of `protocol.ERROR_CODES`.
        message: what is wrong and what to do.
        hint: what would make it work, if that is known.
        details: each file or tensor concerned; at most 50 are sent.
        retryable: the same specification may succeed later.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        details: tuple[str, ...] = (),
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details
        self.retryable = retryable

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(TrainerError, **vars(self)), ()


_FULL = {errno.ENOSPC, errno.EDQUOT}
# safetensors is written in Rust: its errors have no errno, but end with it.
_FULL_IN_RUST = re.compile(rf"I/O error: .*\(os error ({'|'.join(map(str, _FULL))})\)$")


def disk_full(error: BaseException | None) -> TrainerError | None:
    """The typed form of a failure behind which a full disk is; None for any other."""
    while error is not None:
        in_rust = type(error).__name__ == "SafetensorError" and _FULL_IN_RUST.search(str(error))
        if in_rust or (isinstance(error, OSError) and error.errno in _FULL):
            return TrainerError("DISK_FULL", "The disk is full: free some space.", retryable=True)
        error = error.__cause__ or error.__context__
    return None


class Stopped(Exception):
    """A command ended the attempt at a batch boundary. `status` is `cancelled` or `suspended`."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


def mask_paths(text: str) -> str:
    """Replaces each absolute path in a message by its last part: nobody outside needs to know the server's folders."""
    return _ABSOLUTE_PATH.sub(lambda match: match.group(1) or "…", text)
