"""Work on a data set that can be taken up again, whenever it was killed.

Finished images wait in the folder ``OUT.partial``. When all are there, what is to become OUT is
made in it as one file or folder, the *whole*; then the report is noted; then the whole gets its
name by a rename; then the folder goes, the note last. So a noted report says that all is done but
for the last of these steps, and a whole that is missing beside it that it has its name already.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from scalefp.errors import UserError
from scalefp.files import atomic_path, publish, work_folder

NOTE = "settings.json"


class Unfinished:
    """The folder of unfinished work on ``out``.

    Args:
        out: file or folder to be written.
        settings: what the work depends on, for JSON and without secrets: other work than this is
            never taken up.
        private: only its owner may look into the folder.

    Attributes:
        folder: the folder; made by :meth:`claim`.
    """

    def __init__(self, out: Path, settings: dict[str, object], *, private: bool = False) -> None:
        self.out, self.settings, self.private = out, settings, private
        self.folder = out.with_name(out.name + ".partial")

    def _noted(self) -> dict[str, Any]:
        """The note; empty if there is none that we can read."""
        try:
            note = json.loads((self.folder / NOTE).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return note if isinstance(note, dict) else {}

    def _note(self, **entries: object) -> None:
        with atomic_path(self.folder / NOTE, secret=self.private) as temporary:
            temporary.write_text(json.dumps({"settings": self.settings, **entries}, indent=1))

    def take_up_the_end(self) -> dict[str, Any] | None:
        """Finish work of these settings that was killed in its last steps; returns its report.

        None if there is no such work, or something else has taken its place.

        Raises:
            UserError: it still cannot be finished.
        """
        if self.out.exists():
            with suppress(OSError):  # nothing was left to be removed but the folder itself
                self.folder.rmdir()
        note = self._noted()
        if note.get("settings") != self.settings or "report" not in note:
            return None
        whole = self.folder / note["whole"]
        taken = self.out.exists() and not (self.out.is_dir() and not any(self.out.iterdir()))
        if whole.exists() == taken:  # not yet named, but something has the name; or named and lost
            return None
        if not taken:
            publish(whole, self.out)
        self.discard()
        report: dict[str, Any] = note["report"]
        return report

    def claim(self) -> None:
        """Make the folder, or take up that of an earlier run with the same settings.

        Raises:
            UserError: it cannot be made, or holds something else.
        """
        work_folder(self.folder, private=self.private)
        try:
            empty = all(entry.name.startswith(".") for entry in self.folder.iterdir())
        except OSError as error:
            raise UserError(
                f"cannot write in {self.folder} ({error}): choose another --out"
            ) from error
        if not empty and self._noted().get("settings") != self.settings:
            raise UserError(
                f"{self.folder} holds unfinished work of another source or other settings: "
                "remove it to start anew, or repeat those settings to finish it"
            )
        self._note()  # also shows, before any work, that we may write

    def finish(self, whole: Path, report: dict[str, object]) -> None:
        """Give the whole, a file or folder in :attr:`folder`, its name, and clear up.

        Args:
            report: of the work, for JSON; should this be interrupted, the next run gives it.
        """
        self._note(whole=whole.name, report=report)
        publish(whole, self.out)
        self.discard()

    def discard(self) -> None:
        """Remove the folder, the note last: what is left of an interrupted removal is known."""
        for entry in self.folder.iterdir():
            if entry.name == NOTE:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        (self.folder / NOTE).unlink(missing_ok=True)
        self.folder.rmdir()
