"""Completion of ``scalefp ...`` in bash and zsh: commands, and the options that Hydra composes."""

import os
from collections.abc import Mapping
from contextlib import redirect_stderr
from typing import Any

from hydra._internal.core_plugins.bash_completion import BashCompletion

from scalefp.cli.launch import Application, opened, own_folder
from scalefp.errors import UserError

BASH = r"""_scalefp() {
    local line=${COMP_LINE:0:COMP_POINT} choices
    local word=${line##* }
    choices=$(COMP_LINE=$line scalefp train --shell-completion query=bash 2>/dev/null)
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
    # What stands before the last "=" is a word of its own where that breaks words.
    if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}")
    fi
}
complete -o nospace -o default -F _scalefp scalefp"""
SCRIPTS = {
    "install=bash": BASH,
    "install=zsh": f"autoload -U +X bashcompinit && bashcompinit\n{BASH}",
    "uninstall=bash": "complete -r scalefp; unset -f _scalefp",
    "uninstall=zsh": "complete -r scalefp; unset -f _scalefp",
}


def after(word: str, words: list[str]) -> str | None:
    """The word that follows another, None if it does not stand there."""
    return words[words.index(word) + 1] if word in words[:-1] else None


def suggestions(
    line: str, commands: Mapping[str, Any], applications: Mapping[str, Application]
) -> list[str]:
    """How the last word of a command line may go on.

    Args:
        line: from ``scalefp`` up to where it is being typed.
        commands: parsers of the commands, by name.
        applications: what Hydra composes the options of, by command: ``artificial train``.
    """
    words = line.split()[1:]
    new = not line or line[-1] == " "
    typed = [] if new else words[-1:]
    done = words[: len(words) - len(typed)]
    for name, app in applications.items():
        inner = done[len(name.split()) :]
        if done[: len(name.split())] == name.split():
            # Hydra would take a folder after --config-dir for an option.
            folder = after("--config-dir", inner)
            texts = own_folder(folder) + [word for word in inner if "=" in word or word == "-m"]
            with opened(app) as hydra:
                plugin = BashCompletion(hydra.config_loader)
                found = plugin._query(app.config_name, " ".join([*texts, *(typed or [""])]))
            return [text for text in found if not text.startswith("hydra.")] or found
    for word in done:
        parser = commands.get(word)
        groups = [] if parser is None else parser._actions
        commands = next((a.choices for a in groups if isinstance(a.choices, dict)), {})
    return sorted(commands)


def complete(
    request: list[str], commands: Mapping[str, Any], applications: Mapping[str, Application]
) -> None:
    """Print what a shell evaluates (``install=bash``) or suggestions (``query=bash``).

    Raises:
        UserError: neither of them.
    """
    (what,) = request if len(request) == 1 else [""]
    if what in SCRIPTS:
        print(SCRIPTS[what])
    elif what.startswith("query="):
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            found = suggestions(os.environ.get("COMP_LINE", ""), commands, applications)
        print(" ".join(found))
    else:
        raise UserError(f"--shell-completion takes one of {', '.join(SCRIPTS)}")
