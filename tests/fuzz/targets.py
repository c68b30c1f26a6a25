"""Every parser of files from outside: a valid tree to begin with, the files that are damaged, and the reading of it."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rice.data.world import WorldConfig, materialise
from rice.progress import SilentProgress

QUIET = SilentProgress()
Read = Callable[[Path, Path], object]
"""Reads a tree as far as its users do: of the tree's root and of the damaged file."""


@dataclass(frozen=True)
class Target:
    """make: write a valid tree into a folder; the files that may be damaged, relative to it. share: of the cases that a
    target has, for one whose reading takes long."""

    name: str
    make: Callable[[Path], list[str]]
    read: Read
    share: float = 1.0


def _world(*files: str, **config: Any) -> Callable[[Path], list[str]]:
    """Files by patterns; the first match of each."""

    def make(root: Path) -> list[str]:
        materialise(WorldConfig(**({"size": 64, "train": 2, "test": 1, "objects": (1, 2)} | config)), root)
        found = [next(iter(sorted(root.glob(pattern))), None) for pattern in files]
        assert None not in found, (files, sorted(str(path.relative_to(root)) for path in root.rglob("*")))
        return [str(path.relative_to(root)) for path in found if path is not None]

    return make


def _coco(root: Path, _: Path) -> None:
    from rice.data.coco import open_split

    split = open_split(root, "train")
    split.as_coco()
    for index, image in enumerate(split.images):
        split.load_image(index)
        for annotation in image.annotations:
            if annotation.segmentation is not None:
                split.mask(annotation)


def _lvis(root: Path, _: Path) -> None:
    from rice.data.coco import open_split

    open_split(root, "lvis_v1_train").as_coco()


def _words(root: Path, _: Path) -> None:
    from rice.data.icdar import find_splits, read_split

    for pictures, truths in find_splits(root).values():
        read_split(pictures, truths)


def _tracking(root: Path, _: Path) -> None:
    from tracking.layouts import fingerprint, open_split

    open_split(root, "train")
    fingerprint(root, "train")


def _refs(root: Path, file: Path) -> None:
    from mllm.lisa.pictures_writer import Refusals
    from mllm.lisa.refer import forget, read_refer, read_referents

    forget()
    if file.name != "instances.json":
        read_referents(file)
    instances = next(root.rglob("instances.json"))
    refs = file if file.name != "instances.json" else next(file.parent.glob("refs*.p"))
    pictures = read_refer(
        refs, instances, "train", root=root, source="x", images="images", refusals=Refusals(), progress=QUIET
    )
    list(pictures)


def _make_conversations(root: Path) -> list[str]:
    """Each kind of file; of Parquet files with pictures in them, too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (said,) = _world("**/*.json", layout="llava")(root)
    rows = json.loads((root / said).read_text())[:2]
    (root / "b.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    turns = [[{"from": turn["from"], "value": turn["value"]} for turn in row["conversations"]] for row in rows]
    pictures = [{"bytes": b"\xff\xd8 no JPEG", "path": "a.jpg"}] * len(rows)
    table = pa.table({"id": ["0", "1"], "conversations": turns, "image": pictures})
    pq.write_table(table, root / "c.parquet", compression="none", use_dictionary=False)
    return [said, "b.jsonl", "c.parquet"]


def _conversations(_: Path, file: Path) -> None:
    from mllm.llava.parse import RefusedRowError, parse_row
    from mllm.llava.sources import find_sources

    for source in find_sources([file]):
        for value in source.values():
            with contextlib.suppress(RefusedRowError):  # what is refused is counted
                parse_row(value)


def _reasons(root: Path, _: Path) -> None:
    from mllm.lisa.pictures_writer import Refusals
    from mllm.lisa.reason import read_reason

    found = read_reason(
        root,
        source="x",
        images="train",
        explanations=root / "explanatory" / "train.json",
        refusals=Refusals(),
        progress=QUIET,
    )
    list(found)


def _make_reasons(root: Path) -> list[str]:
    (root / "train").mkdir(parents=True)
    (root / "explanatory").mkdir()
    Image.new("RGB", (40, 30)).save(root / "train" / "a.jpg")
    shape = {"label": "target", "points": [[2, 3], [30, 4], [25, 20]], "shape_type": "polygon"}
    other = shape | {"label": "ignore", "points": [[1, 1], [4, 1], [4, 4]]}
    document = {"text": ["what flies?", "the thing that flies"], "is_sentence": True, "shapes": [shape, other]}
    (root / "train" / "a.json").write_text(json.dumps(document))
    rows = [{"image": "a.jpg", "query": "what flies?", "outputs": "it has wings"}]
    (root / "explanatory" / "train.json").write_text(json.dumps(rows))
    return ["train/a.json", "explanatory/train.json"]


def _make_shards(root: Path) -> list[str]:
    import pyarrow.parquet as pq

    from rice.data.coco import open_split
    from rice.data.pack import PackConfig, pack_split

    materialise(WorldConfig(size=64, train=3, test=1, objects=(1, 2)), root.parent / "world")
    pack_split(open_split(root.parent / "world", "train"), root, PackConfig(min_edge=8, samples_per_shard=2), QUIET)
    plain = root / "train-000001.parquet"  # what is damaged below compression gets further
    pq.write_table(pq.read_table(plain), plain, compression="none", use_dictionary=False)
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


def _shards(root: Path, _: Path) -> None:
    from rice.data.stream import RegionStream, StreamConfig

    stream = RegionStream.open(root, StreamConfig(size=32))
    list(stream.all_regions(batch=4))


def _make_checkpoint(root: Path) -> list[str]:
    from rice.encoders.region_checkpoint import save_rice
    from rice.model.region import RegionConfig, RiceModel
    from rice.model.vit import ViTConfig

    root.mkdir()
    save_rice(RiceModel(ViTConfig(width=16, depth=1, heads=2, patch=8, image_size=16), RegionConfig(layers=1)), root)
    return sorted(path.name for path in root.iterdir())


def _checkpoint(root: Path, _: Path) -> None:
    from rice.encoders.region_checkpoint import load_rice

    load_rice(root)


def _make_pickle(root: Path) -> list[str]:
    import torch

    from rice.model.checkpoint import save, to_published
    from rice.model.vit import ViT, ViTConfig

    root.mkdir()
    vit = ViT(ViTConfig(width=16, depth=1, heads=2, patch=8, image_size=16))
    save(vit, root)
    (root / "model.safetensors").unlink()
    torch.save(to_published(vit), root / "weights.pt")
    return ["weights.pt", "config.json"]


def _pickle(root: Path, _: Path) -> None:
    from rice.encoders.load import load_encoder

    load_encoder(f"rice:{root / 'weights.pt'}", allow_pickle=True)


def _make_tower(root: Path) -> list[str]:
    root.mkdir()
    config = {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 32, "patch_size": 8, "hidden_act": "quick_gelu",
    }  # fmt: skip
    processor = {
        "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "resample": 3, "do_center_crop": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "rescale_factor": 1 / 255,
    }  # fmt: skip
    (root / "config.json").write_text(json.dumps(config))
    (root / "preprocessor_config.json").write_text(json.dumps(processor))
    return ["config.json", "preprocessor_config.json"]


def _tower(root: Path, _: Path) -> None:
    from rice.encoders.load import describe
    from rice.encoders.spec import EncoderReference

    describe(EncoderReference.parse(f"hf:{root}"))


def _make_result(root: Path) -> list[str]:
    from stored_results import put

    put(root, "one", {"mIoU": 0.25, "pixel accuracy": 0.5}, probe="dense", dataset="scenes")
    return [str(path.relative_to(root)) for path in root.rglob("*.json")]


def _result(_: Path, file: Path) -> None:
    from probes.stored import parse

    parse(file.read_bytes(), file.stem)


def _make_sweep(root: Path) -> list[str]:
    root.mkdir()
    (root / "data").mkdir()
    (root / "sweep.yaml").write_text(
        "name: one\nencoders:\n  - mini-s8-128\n  - {encoder: rice-b16-224, weights: none, size: 64, name: two}\n"
        "datasets:\n  scenes: {world: {kind: scenes, size: 64, objects: [1, 2]}}\n  mine: {path: data}\n"
        "probes:\n  - {probe: dense, data: [scenes, mine], updates: 5}\n  - &k {probe: knn, data: [scenes]}\n"
        "  - {<<: *k, pool: mean}\nseeds: [0, 1]\n"
    )
    return ["sweep.yaml"]


def _sweep(_: Path, file: Path) -> None:
    from probes.sweeps.sweepfile import read_sweep

    read_sweep(str(file))


def _make_pictures(root: Path) -> list[str]:
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    picture.save(buffer, "PNG")
    kinds: dict[str, dict[str, Any]] = {
        "a.png": {}, "b.jpg": {"exif": _turned()}, "c.webp": {}, "d.bmp": {}, "e.tiff": {}, "f.gif": {},
        "g.jpg": {"progressive": True},
    }  # fmt: skip
    for name, options in kinds.items():
        picture.save(root / name, **options)
    picture.convert("P").save(root / "h.png", transparency=3)
    picture.convert("CMYK").save(root / "i.jpg")
    return sorted(path.name for path in root.iterdir())


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def _picture(_: Path, file: Path) -> None:
    from rice.data.picture import open_upright

    open_upright(file)


def _frames(_: Path, file: Path) -> None:
    from rice.data.video import read_frame

    read_frame(file)


def _make_video(root: Path) -> list[str]:
    from rice.data.video import write_video

    root.mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (6, 32, 48, 3), dtype=np.uint8)
    write_video(root / "a.mp4", iter(frames), Fraction(10))
    return ["a.mp4"]


def _video(_: Path, file: Path) -> None:
    from rice.data.video import open_footage

    for _frame in open_footage(file).frames():
        pass


def _make_foreign(root: Path) -> list[str]:
    from import_samples import LMMS, MTEB, OLD_MTEB

    root.mkdir()
    for name, document in (("lmms", LMMS), ("mteb", MTEB), ("old", OLD_MTEB)):
        (root / f"{name}.json").write_text(json.dumps(document))
    return ["lmms.json", "mteb.json", "old.json"]


def _foreign(_: Path, file: Path) -> None:
    from probes.import_formats.foreign import Whose
    from probes.imports import read_results

    read_results(file, Whose.named("mine"))


def _make_detections(root: Path) -> list[str]:
    materialise(WorldConfig(size=64, train=1, test=2, objects=(1, 2)), root)
    truth = json.loads((root / "annotations/instances_val.json").read_text())
    found = [
        {key: one[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5} for one in truth["annotations"]
    ]
    (root / "found.json").write_text(json.dumps(found))
    return ["found.json"]


def _detections(root: Path, file: Path) -> None:
    from probes.detection.score_command import score

    with contextlib.redirect_stdout(io.StringIO()):
        score(gt=root / "annotations/instances_val.json", pred=file)


def _make_tracks(root: Path) -> list[str]:
    for place in ("truth", "found", "absent"):
        (root / place).mkdir(parents=True)
    (root / "truth/a.txt").write_text("1,2,10,12\n2,2,10.5,12\n3,3,10,12\n")
    (root / "found/a.txt").write_text("1\t2\t10\t12\n2\t2\t10\t12\n3\t3\t9\t12\n")
    (root / "absent/a.txt").write_text("0\n0\n1\n")
    (root / "sizes.json").write_text(json.dumps({"a": [64, 48]}))
    return ["truth/a.txt", "found/a.txt", "absent/a.txt", "sizes.json"]


def _tracks(root: Path, _: Path) -> None:
    from tracking.score_inputs import Sides, read_predictions, read_truths

    truths, _notes = read_truths(root / "truth", Sides(absent=root / "absent", sizes=root / "sizes.json"))
    read_predictions(root / "found", truths)


def _make_labels(root: Path) -> list[str]:
    root.mkdir()
    (root / "ade.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t5\t5\t1\twall\n2\t0.1\t5\t5\t1\tsky, air\n"
    )
    (root / "stuff.txt").write_text("0: unlabeled\n1: person\n2: bicycle\n")
    labels = [{"name": "nature--sky", "readable": "Sky", "evaluate": True, "color": [1, 2, 3], "instances": False}]
    (root / "mapillary.json").write_text(json.dumps({"labels": labels, "version": 2.0}))
    return ["ade.txt", "stuff.txt", "mapillary.json"]


def _labels(_: Path, file: Path) -> None:
    from mllm.lisa.semantic import ade20k_names, cocostuff_names, mapillary_names

    readers: dict[str, Callable[[Path], object]] = {
        "ade": ade20k_names, "stuff": cocostuff_names, "mapillary": mapillary_names,
    }  # fmt: skip
    readers[file.stem](file)


def _make_piles(root: Path) -> list[str]:
    """Pictures in a tar and in a Parquet file, as img2dataset writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rice.data.shards import write_tar

    root.mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 9, 9)).save(buffer, "JPEG")
    with write_tar(root / "a.tar") as append:
        append("000.jpg", buffer.getvalue())
        append("000.json", b'{"key": "000"}')
    table = pa.table({"jpg": [buffer.getvalue()], "key": ["000"], "caption": ["x"]})
    pq.write_table(table, root / "b.parquet")
    return ["a.tar", "b.parquet"]


def _piles(_: Path, file: Path) -> None:
    from rice.curate.sources import find_sources

    for shard in find_sources([file], 10):
        shard.fingerprint()
        for _found in shard.candidates():
            pass


def _make_features(root: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root.mkdir()
    features = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)
    np.save(root / "a.npy", features)
    pq.write_table(pa.table({"feature": list(features)}), root / "b.parquet")
    return ["a.npy", "b.parquet"]


def _features(_: Path, file: Path) -> None:
    from rice.curate.features import find_features

    for one in find_features(file).files:
        for _block in one.blocks():
            pass


def targets() -> Iterator[Target]:
    """All of them."""
    boxes = "annotations/instances_train*.json"
    yield Target("coco", _world(boxes), _coco, 0.5)
    yield Target("lvis", _world("annotations/lvis_v1_train.json", layout="lvis"), _lvis)
    yield Target("roboflow", _world("train/_annotations.coco.json", layout="roboflow"), _coco, 0.5)
    yield Target("voc", _world("**/Annotations/*.xml", "**/ImageSets/Main/train*.txt", layout="voc"), _coco, 0.5)
    yield Target("words", _world("*train*gt*/*.txt", layout="icdar", words=(2, 3)), _words)
    tracking = {
        "got10k": ("train/*/groundtruth.txt", "train/*/absence.label", "train/list.txt"),
        "lasot": ("**/groundtruth.txt", "**/full_occlusion.txt"),
        "trackingnet": ("TRAIN_0/anno/*.txt",),
        "tnl2k": ("train/*/groundtruth.txt", "absent/world_disc_0001.txt"),
    }
    for layout, files in tracking.items():
        yield Target(layout, _world(*files, layout=layout, kind="clips", frames=3, objects=(1, 1)), _tracking)
    yield Target(
        "refcoco", _world("refer_seg/refcoco/refs*.p", "refer_seg/refcoco/instances.json", layout="refer"), _refs
    )
    yield Target("grefcoco", _world("refer_seg/grefcoco/grefs*.json", layout="refer"), _refs)
    yield Target("conversations", _make_conversations, _conversations)
    yield Target("reasons", _make_reasons, _reasons)
    yield Target("labels", _make_labels, _labels)
    yield Target("shards", _make_shards, _shards, 0.5)
    yield Target("checkpoint", _make_checkpoint, _checkpoint)
    yield Target("pickled weights", _make_pickle, _pickle)
    yield Target("tower of transformers", _make_tower, _tower)
    yield Target("result", _make_result, _result)
    yield Target("sweep", _make_sweep, _sweep)
    yield Target("picture", _make_pictures, _picture)
    yield Target("frame", _make_pictures, _frames)
    yield Target("video", _make_video, _video)
    yield Target("foreign results", _make_foreign, _foreign)
    yield Target("detections", _make_detections, _detections)
    yield Target("tracks", _make_tracks, _tracks)
    yield Target("piles", _make_piles, _piles)
    yield Target("features", _make_features, _features)
