"""The one exception that stands for a user's mistake."""

LONGEST = 2000
"""Characters of a message, at most."""


class InputError(ValueError):
    """Bad input: a parameter, a file or a folder that the user can put right.

    Its message is one line that says what was wrong, where, what is allowed and what to do; stages print it
    without a traceback. Anything else that is raised is a fault of the program.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str, longest: int = LONGEST) -> str:
    """`text` with whatever cannot be printed escaped, and its middle left out beyond `longest` characters.

    Messages quote names and errors out of files, which may hold line breaks, a terminal's control codes, and megabytes.
    """
    if len(text) > longest:
        kept = longest - len(" … ")
        text = f"{text[: kept - kept // 3]} … {text[-(kept // 3) :]}"
    if text.isprintable():
        return text
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return one_line(shown, longest)
