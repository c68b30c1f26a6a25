"""The target is the object that the rule names, and its boxes and absences are those of the painted masks."""

from dataclasses import replace

import numpy as np
import pytest

from rice.data.world import CATEGORIES, Clip, ClipConfig, Part, draw_clip
from rice.data.world.target import draw_tracks, follow

CLEAR = 0.6
SPARSE = ClipConfig(frames=5, height=64, width=64, objects=(1, 2))
CROWDED = ClipConfig(frames=5, height=64, width=64, objects=(4, 6))


def expected(clip: Clip) -> int | None:
    """The target by the rule, from painted frames."""
    seen = np.zeros((len(clip), len(clip.cast)))
    for index, scene in enumerate(clip):
        for thing in scene.objects:
            seen[index, thing.identity] = thing.visibility
    if not seen[0].any():
        return None
    if (seen[0] >= CLEAR).any():
        return int(np.argmax(np.where(seen[0] >= CLEAR, seen.sum(axis=0), -1)))
    return int(np.argmax(seen[0]))


@pytest.mark.parametrize("config", [SPARSE, CROWDED])
def test_the_target_is_clear_in_the_first_frame_and_seen_most(config: ClipConfig) -> None:
    unclear = 0
    for index in range(60 if config is SPARSE else 15):
        clip = draw_clip(config, Part.TRAIN, 0, index)
        track = follow(clip)
        assert (None if track is None else track.identity) == expected(clip)
        unclear += track is not None and track.sights[0] is not None and track.sights[0].visibility < CLEAR
    assert unclear > 5 or config is CROWDED


def test_boxes_are_those_of_the_visible_mask_and_stay_where_it_was_last_seen() -> None:
    for track in draw_tracks(SPARSE, Part.TEST, 0, range(8)):
        last = None
        for scene, sight, box in zip(track.clip, track.sights, track.boxes(), strict=True):
            shown = [thing for thing in scene.objects if thing.identity == track.identity]
            assert (sight is None) == (not shown)
            if shown:
                rows, columns = np.nonzero(shown[0].mask)
                last = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                assert sight is not None
                assert sight.visibility == shown[0].visibility > 0
                assert CATEGORIES[shown[0].category] == track.category
            assert box == last
        assert track.sights[0] is not None


def test_absent_means_occluded_or_out_of_view() -> None:
    """An object that still cannot be seen when it is alone in the picture is outside it."""
    found = set()
    for seed in (91, 171):
        for track in draw_tracks(replace(SPARSE, frames=6), Part.TRAIN, seed, range(3)):
            alone = replace(track.clip, cast=(track.clip.cast[track.identity],))
            for index, (sight, outside) in enumerate(zip(track.sights, track.out_of_view(), strict=True)):
                assert outside == (sight is None and not alone.frame(index).objects)
                if sight is None:
                    found.add(outside)
    assert found == {False, True}


def test_a_clip_without_a_target_gives_its_place_to_the_next() -> None:
    assert follow(draw_clip(SPARSE, Part.TRAIN, 0, 41)) is None
    drawn = [track.clip.key[-1] for track in draw_tracks(SPARSE, Part.TRAIN, 0, range(44))]
    assert drawn == [index for index in range(45) if index != 41]
    assert [track.clip.key[-1] for track in draw_tracks(SPARSE, Part.TRAIN, 0, range(40, 43))] == [40, 42, 43]
