"""The validation pictures of the bundled detector's figures.

The overhead CCTV set shows three rooms, each by one fixed camera (its name is burnt into the
picture). Frames of a room were collected in runs and each has augmented copies of itself,
so any random split would put near-copies on both sides. The rooms were distinguished by eye from
every frame, after sorting them by likeness of their backgrounds. Stored are the runs of frame
numbers.
"""

from __future__ import annotations

from pathlib import Path

CCTV_ROOMS: dict[str, tuple[tuple[int, int], ...]] = {
    # white walls, dark wooden floor, purple or red uniforms: "Camera 11"
    "meeting_room": (
        (0, 95), (380, 383), (386, 399), (402, 405), (408, 411), (414, 419), (422, 423), (428, 431),
        (434, 439), (442, 443), (446, 459),
    ),
    # tiled floor, green cabinet; by day in colour, else infra-red: "Camera 07"
    "waiting_room": (
        (96, 195), (360, 379), (384, 385), (400, 401), (406, 407), (412, 413), (420, 421),
        (424, 427), (432, 433), (440, 441), (444, 445), (460, 463), (466, 467), (478, 479),
        (500, 501), (510, 515),
    ),
    # white floor with an orange line, orange desk
    "examination_room": ((196, 359), (464, 465), (468, 477), (480, 499), (502, 509)),
}  # fmt: skip
"""First and last frame numbers of each room's runs, both included."""

CCTV_VALIDATION_ROOM = "meeting_room"


def cctv_room(name: str) -> str:
    """Return the room of a frame named `cctv_0123.jpg`."""
    number = int(Path(name).stem.rpartition("_")[2])
    for room, runs in CCTV_ROOMS.items():
        if any(first <= number <= last for first, last in runs):
            return room
    raise ValueError(f"{name}: expected a frame number of 0..515")


def cctv_validation_names(folder: Path, room: str = CCTV_VALIDATION_ROOM) -> tuple[str, ...]:
    """Return the file names of one room's frames in `folder`/images, sorted."""
    names = sorted(path.name for path in (folder / "images").iterdir())
    return tuple(name for name in names if cctv_room(name) == room)


def coco_validation_names(folder: Path) -> tuple[str, ...]:
    """Return every third picture of `folder`/images, by sorted name."""
    return tuple(sorted(path.name for path in (folder / "images").iterdir())[::3])
