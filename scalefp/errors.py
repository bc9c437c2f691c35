"""What the user is told in one sentence, instead of a traceback."""


class UserError(ValueError):
    """Bad input, said in one sentence: what is wrong and how to mend it.

    The command line prints the sentence and exits with code 2; library users may catch it as a
    ``ValueError``.
    """


class FolderTakenError(UserError):
    """The folder is another piece of work's: this one leaves nothing in it."""


class UntrustedRegistryError(UserError):
    """The registry was tampered with or is damaged: nobody can be named by it."""
