"""`rice regions` as it is typed: boxes land where the user put them, and what is no box is told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from rice.cli import main
from rice.encoders.load import load_encoder
from rice.encoders.region_checkpoint import load_rice, save_rice
from rice.model.config import ViTConfig
from rice.model.region import RiceModel

SIZE = (90, 60)  # width, height
BOXES = [[0, 0, 45, 60], [30.5, 10, 90, 59], [4, 4, 5, 5]]
MEAN, STD = (
    torch.tensor(v).view(3, 1, 1) for v in ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tower of 32 pixels in patches of 8 with region layers, a picture, and boxes."""
    torch.manual_seed(0)
    model = RiceModel(ViTConfig(width=24, depth=1, heads=2, patch=8, image_size=32))
    for parameter in model.region_layers.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    save_rice(model, tmp_path / "rice")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    (tmp_path / "boxes.json").write_text(json.dumps(BOXES))
    return tmp_path


def arguments(folder: Path, *more: str, image: str = "photo.png", encoder: str | None = None) -> list[str]:
    words = ["regions", str(folder / image), "--boxes", str(folder / "boxes.json")]
    return [*words, "--encoder", encoder or f"rice:{folder / 'rice'}", *more]


def embeddings(folder: Path, *more: str, image: str = "photo.png") -> Any:
    main(arguments(folder, "--out", str(folder / "out.npz"), *more, image=image))
    return np.load(folder / "out.npz", allow_pickle=False)["embeddings"]


def test_the_whole_picture_is_resized_and_the_boxes_with_it(folder: Path) -> None:
    """90 x 60 pixels become 48 x 32: the shorter edge the encoder's, the longer one six patches."""
    small = np.asarray(Image.open(folder / "photo.png").resize((48, 32), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(small.copy()).permute(2, 0, 1) / 255
    scaled = torch.tensor(BOXES) * torch.tensor([48 / 90, 32 / 60, 48 / 90, 32 / 60])
    with torch.no_grad():
        expected = load_rice(folder / "rice")(((pixels - MEAN) / STD)[None], scaled[None]).regions[0]
    np.testing.assert_allclose(embeddings(folder), expected.numpy(), atol=1e-5)


def test_roi_align_is_the_mean_of_normalised_patches_of_any_encoder(folder: Path) -> None:
    """Of a box that is all of a picture of the encoder's size."""
    Image.open(folder / "photo.png").resize((32, 32)).save(folder / "square.png")
    (folder / "boxes.json").write_text("[[0, 0, 32, 32]]")
    (folder / "rice" / "region.safetensors").unlink()
    found = embeddings(folder, "--pool", "roi_align", image="square.png")
    pixels = torch.from_numpy(np.asarray(Image.open(folder / "square.png")).copy()).permute(2, 0, 1) / 255
    patches = load_encoder(f"rice:{folder / 'rice'}")(pixels[None]).patches[0].flatten(1)
    normed = (patches - patches.mean(0)) / (patches.var(0, unbiased=False) + 1e-5).sqrt()
    expected = normed.mean(1) / normed.mean(1).norm()
    np.testing.assert_allclose(found[0], expected.numpy(), atol=1e-5)


def test_boxes_are_of_the_upright_picture(folder: Path) -> None:
    upright = Image.open(folder / "photo.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    np.testing.assert_array_equal(embeddings(folder, image="turned.png"), embeddings(folder))


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "json"])
def test_every_format_holds_rows_in_the_order_of_the_boxes(folder: Path, suffix: str) -> None:
    expected = embeddings(folder)
    labels = ["dog", "Größe", ""]
    entries = [{"box": box, "label": label} if label else box for box, label in zip(BOXES, labels, strict=True)]
    (folder / "boxes.json").write_text(json.dumps(entries))
    file = folder / f"out.{suffix}"
    main(arguments(folder, "--out", str(file)))
    if suffix == "json":
        rows = json.loads(file.read_text())
        found = [np.array([row[key] for row in rows]) for key in ("embedding", "box", "label")]
    elif suffix == "npz":
        content = np.load(file, allow_pickle=False)
        found = [content[key] for key in ("embeddings", "boxes", "labels")]
    else:
        with safe_open(file, framework="numpy") as content:
            stored = json.loads(content.metadata()["labels"])
            found = [content.get_tensor("embeddings"), content.get_tensor("boxes"), np.array(stored)]
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    np.testing.assert_allclose(found[1], BOXES)
    assert found[2].tolist() == labels


def test_labels_are_drawn_and_printed_as_they_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Dollar signs are no formula."""
    (folder / "boxes.json").write_text(json.dumps([{"box": box, "label": "$_{"} for box in BOXES]))
    main(arguments(folder, "--picture", str(folder / "page.png")))
    assert Image.open(folder / "page.png").width > 500
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("0 $_{  1.000")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 91, 60]], "box 0: [0, 0, 91, 60] lies outside the picture of 90 x 60 pixels"),
        ([[0, 0, 9, 9], [-1, 0, 9, 9]], "box 1: [-1, 0, 9, 9] lies outside"),
        ([[9, 0, 9, 9]], "expected left < right"),
        ([[0, 0, 1e999, 9]], "expected finite numbers"),
        ([[0, 0, 9]], "expected [left, top, right, bottom], got [0, 0, 9]"),
        ([{"label": "dog"}], "box 0: expected [left, top, right, bottom], got None"),
        ([{"box": [0, 0, 9, 9], "label": 3}], "label 3 is no text"),
        ([], "expected a JSON list of boxes"),
        ({"boxes": []}, "expected a JSON list of boxes"),
    ],
)
def test_what_is_no_box_is_told_in_one_line(
    folder: Path, boxes: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "boxes.json").write_text(json.dumps(boxes))
    refuse(arguments(folder, "--out", str(folder / "out.npz")), message, capsys)
    assert not (folder / "out.npz").exists()


def test_weights_without_trained_region_layers_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse(arguments(folder, encoder="mini-s8-128"), "or ask for --pool roi_align", capsys)
    refuse(arguments(folder, encoder=f"rice:{folder / 'rice'},layer=0"), "leave out layer=0", capsys)
    (folder / "rice" / "region.safetensors").unlink()
    refuse(arguments(folder), "expected rice:DIR with region.safetensors in it", capsys)


@pytest.mark.parametrize("flag", ["--out", "--picture"])
def test_an_unknown_format_is_told_before_any_work(folder: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    refuse(arguments(folder, flag, str(folder / "out.csv"), encoder="nothing"), f"expected {flag} to end in", capsys)


def refuse(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error.count("\n") == 1
    assert message in error
