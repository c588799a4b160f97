from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from storeguard.training.clips.data import (
    ClipDatasetError,
    ClipVideo,
    Fold,
    FollowedVideo,
    VideoCache,
    check_leakage,
    leave_one_group_out,
    random_folds,
    read_list,
)


def video(name: str, group: str, *, positive: bool = False) -> ClipVideo:
    return ClipVideo(name, Path(name), positive, group)


def listed(folder: Path, *rows: str, header: str = "file,label,group") -> Path:
    for row in rows:
        (folder / row.split(",")[0]).touch()
    (folder / "videos.csv").write_text("\n".join((header, *rows)) + "\n")
    return folder


def test_a_list(tmp_path: Path) -> None:
    listed(tmp_path, "a.mp4,normal,ann", "b.mp4,shoplifting,ann+bob")
    first, second = read_list(tmp_path)
    assert (first.positive, second.positive) == (False, True)
    assert second.groups == {"ann", "bob"}
    assert second.path == tmp_path / "b.mp4"


def test_the_column_may_be_called_actor(tmp_path: Path) -> None:
    listed(tmp_path, "a.mp4,normal,ann", "b.mp4,theft,bob", header="file,label,actor")
    assert [one.group for one in read_list(tmp_path)] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((), "0 and 0"),  # empty
        (("a.mp4,normal,ann",), "1 and 0"),  # one class
        (("a.mp4,theft,ann",), "0 and 1"),
        (("a.mp4,normal,",), "line 2.*group"),  # the group is missing
        (("a.mp4,,ann",), "line 2.*label"),
    ],
)
def test_a_list_that_cannot_be_trained_on(
    tmp_path: Path, rows: tuple[str, ...], message: str
) -> None:
    listed(tmp_path, *rows)
    with pytest.raises(ClipDatasetError, match=message):
        read_list(tmp_path)


def test_no_list(tmp_path: Path) -> None:
    with pytest.raises(ClipDatasetError, match=r"videos\.csv"):
        read_list(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    listed(tmp_path, "a.mp4,normal,ann", "b.mp4,theft,bob")
    (tmp_path / "b.mp4").unlink()
    with pytest.raises(ClipDatasetError, match=r"line 3: there is no file .*b\.mp4"):
        read_list(tmp_path)


# ---------------------------------------------------------------------- splits


def test_leaving_one_group_out_leaves_out_all_videos_they_are_in() -> None:
    videos = [video("1", "a"), video("2", "b"), video("3", "a+b"), video("4", "c")]
    folds = {fold.name: fold for fold in leave_one_group_out(videos)}
    assert set(folds) == {"a", "b", "a+b", "c"}
    assert [one.name for one in folds["a"].train] == ["2", "4"]
    assert [one.name for one in folds["a+b"].train] == ["4"]
    tested = [one.name for fold in folds.values() for one in fold.test]
    assert sorted(tested) == ["1", "2", "3", "4"]


def test_leakage_is_noticed() -> None:
    fold = Fold("mine", (video("train.mp4", "ann+bob"),), (video("test.mp4", "bob"),))
    with pytest.raises(ClipDatasetError, match=r"'mine': bob .*train\.mp4.*test\.mp4"):
        check_leakage(fold)


def test_random_folds_deal_out_both_classes_and_repeat() -> None:
    videos = [video(str(i), "a", positive=i < 10) for i in range(30)]
    folds = random_folds(videos, num_folds=5, seed=1)
    assert [sum(one.positive for one in fold.test) for fold in folds] == [2] * 5
    assert sorted(one.name for fold in folds for one in fold.test) == sorted(map(str, range(30)))
    assert folds == random_folds(videos, num_folds=5, seed=1)
    assert folds != random_folds(videos, num_folds=5, seed=2)


# ---------------------------------------------------------------------- people, followed


def test_a_video_is_followed_once_and_cached(cabin: Path, tmp_path: Path) -> None:
    cache = VideoCache(tmp_path / "cache")
    one = ClipVideo("cabin", cabin, False, "man")
    (first,) = cache.open([one])
    assert first.has_person
    assert isinstance(first.pictures, np.memmap)
    assert len(first.pictures) == len(first.frame_s)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    (again,) = VideoCache(tmp_path / "cache").open([one])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == made
    np.testing.assert_array_equal(first.xyxy, again.xyxy)
    # The man sits in the middle of the picture: so does his box.
    centre = (first.xyxy[:, :2] + first.xyxy[:, 2:]).mean(axis=0) / 2
    assert (np.abs(centre / (176, 144) - 0.5) < 0.2).all()


def test_a_half_filled_cache_is_filled_again(cabin: Path, tmp_path: Path) -> None:
    one = ClipVideo("cabin", cabin, False, "man")
    (first,) = VideoCache(tmp_path).open([one])
    (done,) = tmp_path.rglob("done")
    done.unlink()
    (done.parent / "xyxy.npy").write_bytes(b"torn")
    (again,) = VideoCache(tmp_path).open([one])
    np.testing.assert_array_equal(first.xyxy, again.xyxy)


def test_clips_lie_within_the_stay(cabin: Path, tmp_path: Path) -> None:
    (one,) = VideoCache(tmp_path).open([ClipVideo("cabin", cabin, False, "man")])
    ends = one.uniform_ends() + one.random_ends(20, np.random.default_rng(0))
    assert len(ends) == 28
    for end_s in ends:
        assert one.clip(end_s).shape == (16, 224, 224, 3)
        assert end_s - 15 / 8 >= one.seen_s[0] - 1e-6
    assert len({round(end_s, 6) for end_s in ends}) == 28


def test_no_clip_spans_a_gap() -> None:
    """As in serving: a person who is out of view for more than 1.25 s gets no clip across that."""
    frame_s = np.arange(0, 20, 0.125)
    # in view for 4 s, out for 1.5 s, in view for 1.5 s (too short for a clip), out, in view for 5 s
    parts = [(0, 4), (5.5, 7), (10, 15)]
    seen_s = np.concatenate([frame_s[(frame_s >= a) & (frame_s <= b)] for a, b in parts])
    one = FollowedVideo(
        video("gap.mp4", "a"),
        np.zeros((len(frame_s), 2, 2, 3), np.uint8),
        frame_s,
        seen_s,
        np.tile(np.array([0, 0, 2, 2], np.float32), (len(seen_s), 1)),
    )
    assert one.has_person
    ends = one.uniform_ends(50) + one.random_ends(200, np.random.default_rng(0))
    assert all(1.875 <= end <= 4 or 11.875 <= end <= 15 for end in ends)
    assert {end < 5 for end in ends} == {True, False}
    for end_s in ends:
        one.clip(end_s)
    with pytest.raises(
        ClipDatasetError, match=r"gap\.mp4: the person was out of view before 6\.00"
    ):
        one.clip(6.0)


def test_a_person_in_view_for_moments_only_gets_no_clips() -> None:
    seen_s = np.array([0.0, 0.5, 3.0, 3.5, 6.0, 6.5])
    one = FollowedVideo(
        video("short.mp4", "a"), np.zeros((1, 2, 2, 3), np.uint8), seen_s, seen_s, np.zeros((6, 4))
    )
    assert not one.has_person


def test_a_video_without_people(tmp_path: Path) -> None:
    path = tmp_path / "grey.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for _ in range(30):
            grey = np.full((120, 160, 3), 90, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        out.mux(stream.encode(None))
    (one,) = VideoCache(tmp_path / "cache").open([ClipVideo("grey", path, False, "none")])
    assert not one.has_person
    assert len(one.pictures) == 30


def test_an_unreadable_video_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(ClipDatasetError, match=r"broken\.mp4: cannot be read"):
        VideoCache(tmp_path / "cache").open([ClipVideo("broken", path, True, "x")])
    assert not list(tmp_path.rglob("done"))
