"""The generated world: scenes and clips with exact masks, boxes, words and identities, from integer seeds."""

from rice.data.world.actors import CATEGORIES
from rice.data.world.clip import Clip, ClipConfig, draw_clip
from rice.data.world.config import WorldConfig, materialise
from rice.data.world.draws import Part
from rice.data.world.scene import Scene, SceneConfig, SceneObject, draw_crop, draw_scene
from rice.data.world.words import Word

__all__ = [
    "CATEGORIES",
    "Clip",
    "ClipConfig",
    "Part",
    "Scene",
    "SceneConfig",
    "SceneObject",
    "Word",
    "WorldConfig",
    "draw_clip",
    "draw_crop",
    "draw_scene",
    "materialise",
]
