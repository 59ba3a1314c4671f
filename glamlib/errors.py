"""The one exception for input that cannot be used: one line that names the file or value and what is allowed."""


class InputError(ValueError):
    """Raised for bad input of any kind (a file, a value, a name). Its message is complete in one line.

    A DataLoader raises a worker's error again with the whole traceback as its message: of that the last line is kept.
    """

    def __init__(self, message: str) -> None:
        if message.startswith("Caught InputError in "):
            message = message.rstrip().rpartition("InputError: ")[2]
        super().__init__(message)


def one_of(what: str, value: object, allowed: object) -> InputError:
    """Return the error for a value outside a list: ``what`` is its role, ``allowed`` what is accepted."""
    listed = ", ".join(str(item) for item in allowed)
    return InputError(f"unknown {what} {value!r}; allowed: {listed}")
