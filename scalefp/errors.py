"""The one exception for mistakes a user can mend."""


class UserError(ValueError):
    """Bad input, said in one sentence: what is wrong and how to mend it.

    The command line prints the sentence and exits with code 2; library users may catch it as a
    ``ValueError``.
    """
