from pathlib import Path

import numpy as np
import pytest

from storeguard.errors import DatasetError
from storeguard.tracking.mot import lines_of, read_detections, read_tracks
from storeguard.tracking.tracks import Tracks

TWO = Tracks(
    track_id=np.array([3, 9], np.int64),
    xyxy=np.array([[1.5, 2, 11.5, 22], [100, 50, 140, 170]], np.float32),
    score=np.array([0.5, 0.875], np.float32),
)


def test_lines_are_mot_challenge_s():
    assert list(lines_of(7, TWO)) == [
        "7,3,1.50,2.00,10.00,20.00,0.5000,-1,-1,-1",
        "7,9,100.00,50.00,40.00,120.00,0.8750,-1,-1,-1",
    ]


def test_what_is_written_is_read(tmp_path: Path):
    path = tmp_path / "tracks.txt"
    frames = {1: TWO, 2: Tracks.empty(), 5: TWO}
    lines = [line for frame, tracks in frames.items() for line in lines_of(frame, tracks)]
    path.write_text("\n".join(lines) + "\n")
    read = read_tracks(path)
    assert sorted(read) == [1, 5]
    np.testing.assert_array_equal(read[5].track_id, TWO.track_id)
    np.testing.assert_allclose(read[5].xyxy, TWO.xyxy)
    np.testing.assert_allclose(read[5].score, TWO.score)


def test_pedestrians_only_leaves_out_what_is_not_scored(tmp_path: Path):
    path = tmp_path / "gt.txt"
    path.write_text("1,1,0,0,10,20,1,1,0.8\n1,2,0,0,10,20,0,1,1\n1,3,0,0,10,20,1,7,1\n")
    assert read_tracks(path, pedestrians_only=True)[1].track_id.tolist() == [1]
    assert read_tracks(path)[1].track_id.tolist() == [1, 2, 3]


def test_detections_keep_their_raw_scores(tmp_path: Path):
    path = tmp_path / "det.txt"
    path.write_text("2,-1,10,20,30,40,-0.5,-1,-1,-1\n\n2,-1,0,0,5,5,2.25,-1,-1,-1\n")
    read = read_detections(path)
    np.testing.assert_allclose(read[2].xyxy, [[10, 20, 40, 60], [0, 0, 5, 5]])
    np.testing.assert_allclose(read[2].score, [-0.5, 2.25])


def test_an_empty_file_has_no_frames(tmp_path: Path):
    (tmp_path / "gt.txt").write_text("")
    assert read_tracks(tmp_path / "gt.txt") == {}
    assert read_tracks(tmp_path / "gt.txt", pedestrians_only=True) == {}


@pytest.mark.parametrize(
    "text", ["1,2,3\n", "1,1,0,0,10,twenty,1\n", "1,1,0,0,1,1,1\n1,1,0\n"], ids=str.strip
)
def test_a_malformed_file_is_named(tmp_path: Path, text: str):
    path = tmp_path / "gt.txt"
    path.write_text(text)
    with pytest.raises(DatasetError, match=r"gt\.txt"):
        read_tracks(path)


def test_class_is_needed_to_choose_pedestrians(tmp_path: Path):
    path = tmp_path / "gt.txt"
    path.write_text("1,1,0,0,10,20,1\n")
    with pytest.raises(DatasetError, match="class"):
        read_tracks(path, pedestrians_only=True)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"nowhere\.txt"):
        read_tracks(tmp_path / "nowhere.txt")
