"""Finished parts of a long measurement, kept in a folder: a second run goes on from there."""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scalefp.errors import UserError
from scalefp.files import atomic_path, counted


def content_digest(path: Path | str | None) -> str | None:
    """SHA-256 of a file, for settings; what is no file, as a bundled name, stands for itself."""
    if path is None or not Path(path).is_file():
        return path if path is None else str(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Parts:
    """Results by name, each measured once for given settings.

    A part is a file of the folder that holds its result and a digest of the settings that it was
    measured with. A part of other settings is measured again and replaced.

    Attributes:
        finished: parts that the folder held for these settings when it was taken up.
        foreign: files of other settings, another version or another program.
    """

    def __init__(self, folder: Path | str | None, settings: Mapping[str, Any]) -> None:
        """Take up the folder's parts.

        Args:
            folder: made if missing; None keeps nothing.
            settings: all that decides the results, ready for JSON.

        Raises:
            UserError: the folder cannot be made or read.
        """
        self.folder = None if folder is None else Path(folder)
        text = json.dumps(settings, sort_keys=True)
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self.finished = self.foreign = 0
        self._kept: dict[str, Any] = {}
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            contents = {path.name: path.read_bytes() for path in self.folder.glob("*.json")}
        except OSError as error:
            raise UserError(
                f"cannot use {self.folder} ({error.strerror}): choose another place"
            ) from error
        for name, content in contents.items():
            try:
                part = json.loads(content)
                own = part["settings"] == self.digest
                result = part["result"]
            except (ValueError, KeyError, TypeError):
                own = False
            if own:
                self._kept[name] = result
        self.finished = len(self._kept)
        self.foreign = len(contents) - self.finished

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """The result of a part, measured now unless it is kept; as JSON gives it back."""
        file = re.sub(r"[^\w.+-]+", "_", name) + ".json"
        if file not in self._kept:
            text = json.dumps(measure(), allow_nan=False)
            if self.folder is not None:
                with atomic_path(self.folder / file) as temporary:
                    part = f'{{"settings": "{self.digest}", "result": {text}}}\n'
                    temporary.write_text(part, encoding="utf-8")
            self._kept[file] = json.loads(text)
        return self._kept[file]

    def measure(self, work: Mapping[str, Callable[[], Any]], title: str) -> dict[str, Any]:
        """The results of all parts by name, with a progress bar that is called ``title``."""
        again = f"{counted(self.foreign, 'part')} of another release or configuration"
        for count, what in (
            (self.finished, f"{counted(self.finished, 'finished part')} taken over"),
            (self.foreign, f"{again} measured again"),
        ):
            if count:
                print(f"{self.folder}: {what}", file=sys.stderr)
        found = {}
        with tqdm(work.items(), title, unit="part") as bar:
            for name, part in bar:
                bar.set_postfix_str(name)
                found[name] = self.get(name, part)
        return found
