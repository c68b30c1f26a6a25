"""Clips: every frame agrees with a painter, identities persist, motion is smooth, frames can be drawn alone."""

import numpy as np
import pytest

from rice.data.world import Clip, ClipConfig, Part, draw_clip
from rice.data.world.clip import Motion
from rice.data.world.shapes import Pose

CONFIG = ClipConfig(frames=12, height=80, width=112, objects=(4, 6), clutter=(1, 2))


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [draw_clip(CONFIG, part, 0, index) for part in Part for index in range(3)]


def test_every_mask_is_a_painters(clips: list[Clip]) -> None:
    for clip in clips[::2]:
        for index in (0, 5, 11):
            t = index / 11
            camera = clip.camera.at(t, 1)
            painted_HW = np.full((80, 112), -1)
            totals = {}
            for identity, (actor, motion) in reversed(list(enumerate(clip.cast))):
                pose = motion.at(t, actor.aspect)
                seen = Pose(pose.x - camera.x, pose.y - camera.y, pose.turn, pose.radius, pose.aspect)
                stencil = actor.stencil(seen)
                totals[identity] = stencil.inside_hw.sum()
                meet = stencil.clip(80, 112)
                if meet is not None:
                    painted_HW[meet[0]][stencil.inside_hw[meet[1]]] = identity
            frame = clip.frame(index)
            shown = {thing.identity for thing in frame.objects}
            labelled = {k for k, (actor, _) in enumerate(clip.cast) if actor.category is not None}
            assert shown == labelled & {int(value) for value in np.unique(painted_HW)}
            for thing in frame.objects:
                np.testing.assert_array_equal(thing.mask, painted_HW == thing.identity)
                assert thing.visibility == pytest.approx(thing.mask.sum() / totals[thing.identity])
                assert thing.category == clip.cast[thing.identity][0].category


def test_frames_can_be_drawn_alone_and_in_any_order(clips: list[Clip]) -> None:
    for clip in clips[:2]:
        forward = [scene.image for scene in clip]
        assert len(forward) == len(clip) == 12
        for index in (7, 0, 11):
            np.testing.assert_array_equal(clip.frame(index).image, forward[index])
        assert not np.array_equal(forward[0], forward[1])


def test_motion_is_smooth_and_things_cross(clips: list[Clip]) -> None:
    hidden = 0
    for clip in clips:
        for actor, motion in clip.cast:
            poses = [motion.at(index / 11, actor.aspect) for index in range(12)]
            places = np.array([(pose.x, pose.y) for pose in poses])
            steps = np.diff(places, axis=0)
            bends = np.linalg.norm(np.diff(steps, axis=0), axis=1)
            assert bends.max(initial=0) < 0.25 * 112
            radii = np.array([pose.radius for pose in poses])
            assert (np.abs(np.diff(radii)) < 0.05 * radii[:-1]).all()
        hidden += sum(thing.visibility < 0.6 for scene in clip for thing in scene.objects)
    assert hidden > 10


def test_motion_starts_and_ends_where_it_says() -> None:
    motion = Motion((1.0, 2.0), (50.0, 60.0), (9.0, -4.0), (10.0, 20.0), 4000, 200)
    assert motion.at(0, 1) == Pose(1, 2, 4000, 10, 1)
    assert motion.at(1, 1) == Pose(9, -4, 104, 20, 1)
    assert motion.at(0.5, 1) == Pose((1 + 100 + 9) / 4, (2 + 120 - 4) / 4, 4, 15, 1)


def test_the_camera_drifts_and_never_leaves_the_background(clips: list[Clip]) -> None:
    for clip in clips:
        _, height, width = clip.background.shape
        places = [clip.camera.at(index / 100, 1) for index in range(101)]
        assert max(abs(p.x) for p in places) <= (width - 112) / 2 - 1
        assert max(abs(p.y) for p in places) <= (height - 80) / 2 - 1
    still = ClipConfig(frames=1, height=64, width=64, drift=0)
    assert draw_clip(still, Part.TRAIN, 0, 0).frame(0).image.shape == (64, 64, 3)


def test_objects_need_no_painting(clips: list[Clip]) -> None:
    for clip in clips[:3]:
        for index in (0, 6, 11):
            painted, alone = clip.frame(index).objects, clip.objects(index)
            assert len(painted) == len(alone) > 0
            for one, other in zip(painted, alone, strict=True):
                np.testing.assert_array_equal(one.mask, other.mask)
                assert (one.category, one.identity, one.depth) == (other.category, other.identity, other.depth)
                assert (one.box, one.visibility) == (other.box, other.visibility)
                assert clip.in_view(index, one.identity)
