"""Figures found in folders: only what is what it says it is, and never outside of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reports.page.media import find
from rice.errors import RiceError

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
MP4 = b"\0\0\0\x18ftypmp42" + b"frames"
PCA = {
    "encoder": {"encoder": "mini", "fingerprint": "f" * 64, "weights": "default"},
    "source": {"name": "dog"},
    "grid": [32, 48],
    "key": {"input": [256, 384], "frames": 24, "stride": 1},
    "device": "a processor",
}


def pca(folder: Path, report: Any = PCA, clip: bytes = MP4, strip: bytes = PNG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pca.json").write_text(report if isinstance(report, str) else json.dumps(report))
    (folder / "pca.mp4").write_bytes(clip)
    (folder / "strip.png").write_bytes(strip)
    return folder


def test_a_pca_folder_anywhere_below_is_found_with_its_encoder(tmp_path: Path) -> None:
    folder = pca(tmp_path / "a" / "b" / "dog")
    (figure,), left = find([tmp_path])
    assert not left
    assert figure.kind == "pca"
    assert figure.title == "dog — mini"
    assert figure.encoders == {"f" * 64}
    assert figure.clip is not None
    assert (figure.clip.path, figure.clip.media_type) == (folder / "pca.mp4", "video/mp4")
    assert [picture.path for picture in figure.pictures] == [folder / "strip.png"]
    assert dict(figure.facts)["tokens"] == "48 × 32"  # noqa: RUF001


def test_other_verbs_figures_are_found(tmp_path: Path) -> None:
    encoders = [{"label": "a"}, {"label": "b"}]
    for name in ("tsne", "tokens"):
        (tmp_path / name).mkdir()
        report = {"config": {"images": 200, "fingerprints": ["a" * 64, "b" * 64], "pictures": "0" * 64}}
        (tmp_path / name / f"{name}.json").write_text(json.dumps(report | {"encoders": encoders}))
        (tmp_path / name / f"{name}.png").write_bytes(PNG)
    (tmp_path / "tsne" / "tsne.html").write_text("<!DOCTYPE html><p>sphere")
    (tmp_path / "table5.png").write_bytes(PNG)
    figures, left = find([tmp_path])
    assert not left
    assert [(one.kind, one.title) for one in figures] == [
        ("curves", "Table 5 as curves"),
        ("tokens", "Token distances — a, b"),
        ("tsne", "t-SNE — a, b"),
    ]
    assert figures[1].encoders == {"a" * 64, "b" * 64}
    assert figures[1].facts == (("images", "200"),)
    assert figures[2].page is not None


@pytest.mark.parametrize(
    "damage",
    [
        {"clip": b"<script>"},
        {"strip": b"GIF89a"},
        {"report": "{"},
        {"report": "[]"},
        {"report": "\udcff".encode("utf-8", "surrogateescape").decode("latin-1") + "{"},
    ],
    ids=["clip", "strip", "cut", "list", "garbage"],
)
def test_what_is_not_what_it_says_is_left_out_with_its_reason(tmp_path: Path, damage: dict[str, Any]) -> None:
    pca(tmp_path / "figures" / "bad", **damage)
    pca(tmp_path / "figures" / "good")
    figures, left = find([tmp_path / "figures"])
    assert len(figures) == 1
    assert [one.file for one in left] == ["figures/bad/pca.json"]
    assert left[0].reason.endswith("run the verb again")


def linked_folder(inside: Path, outside: Path) -> None:
    (inside / "link").symlink_to(pca(outside / "secret"))


def linked_clip(inside: Path, outside: Path) -> None:
    folder = pca(inside / "pca")
    (folder / "pca.mp4").unlink()
    (folder / "pca.mp4").symlink_to(pca(outside / "secret") / "pca.mp4")


def linked_report(inside: Path, outside: Path) -> None:
    folder = pca(inside / "pca")
    (folder / "pca.json").unlink()
    (folder / "pca.json").symlink_to(pca(outside / "secret") / "pca.json")


@pytest.mark.parametrize("link", [linked_folder, linked_clip, linked_report])
def test_links_are_not_followed(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    link(inside, outside)
    figures, _ = find([inside])
    assert not figures


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"encoder": "text", "grid": "text", "key": [], "source": None},
        {"encoder": {"encoder": ["list"], "fingerprint": {"a": 1}}, "grid": [1, "2"], "key": {"frames": {}}},
        {"encoder": {"encoder": {"encoder": {"encoder": {"encoder": {"fingerprint": "deep"}}}}}},
    ],
)
def test_a_report_of_another_shape_is_shown_without_what_it_does_not_say(tmp_path: Path, report: Any) -> None:
    pca(tmp_path, report)
    (figure,), left = find([tmp_path])
    assert not left
    assert not figure.encoders
    assert all(isinstance(text, str) for fact in figure.facts for text in fact)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RiceError, match="expected a folder of figures"):
        find([tmp_path / "nowhere"])
