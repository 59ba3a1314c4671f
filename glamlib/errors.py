"""The one exception for input that cannot be used: one line that names the file or value and what is allowed."""


class InputError(ValueError):
    """Raised for bad input of any kind (a file, a value, a name). Its message is complete in one line."""


def one_of(what: str, value: object, allowed: object) -> InputError:
    """Return the error for a value outside a list: ``what`` is its role, ``allowed`` what is accepted."""
    listed = ", ".join(str(item) for item in allowed)
    return InputError(f"unknown {what} {value!r}; allowed: {listed}")
