"""The web service of an investigator: ``scalefp serve``, extra ``[service]``.

``serve.py`` starts it, ``app.py`` says what it answers; imports run from these two downwards.
"""
