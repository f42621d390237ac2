"""The one exception that stands for a user's mistake."""


class InputError(ValueError):
    """Bad input: a parameter, a file or a folder that the user can put right.

    Its message is one line that says what was wrong, where, what is allowed and what to do; stages print it
    without a traceback. Anything else that is raised is a fault of the program.
    """
