"""A reader's position in the event journal, and the file that keeps it.

The journal keeps no list of its readers. Each reader keeps the sequence number of the last change
it has dealt with and requests what came after. An answer that is lost is requested again.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_log = logging.getLogger(__name__)


class Cursor(BaseModel):
    """A position in one journal.

    A cursor of another journal, such as the one before a damaged file was replaced, stands for the
    beginning of what the journal still holds.

    Attributes:
        journal_id: which journal; see `Journal.journal_id`.
        seq: sequence number of the last change the reader has dealt with; 0 before the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    journal_id: str
    seq: int = Field(ge=0)


class CursorFile:
    """Keeps one reader's cursor in a file. One thread writes it.

    Args:
        path: the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Cursor | None:
        """The cursor as last saved; None if there is none, or (logged) none that can be read.

        Raises:
            OSError: the file is there and cannot be opened.
        """
        try:
            return Cursor.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            _log.error(
                "cursor %s: expected a journal_id and a seq, found something else; reading starts "
                "at the beginning of the journal: %s",
                self.path,
                error,
            )
            return None

    def save(self, cursor: Cursor) -> None:
        """Replace the saved cursor, whole or not at all; on disk when it returns.

        Raises:
            OSError: the disk is full, ...; the cursor saved before is still there.
        """
        fresh = self.path.with_name(f".{self.path.name}.tmp")
        try:
            with fresh.open("wb") as file:
                file.write(cursor.model_dump_json().encode())
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise
