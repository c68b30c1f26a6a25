"""`rice encoders` and `rice export` as they are typed."""

import json
from pathlib import Path

import pytest

from rice.cli import main
from rice.encoders.zoo import ZOO


def test_table_names_every_encoder_with_its_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    main(["encoders"])
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines}
    assert rows.keys() >= ZOO.keys()
    assert "729 (27x27)" in rows["siglip-so400m-14-384"]
    assert "not published" in rows["rice-b16-512"]
    assert all(line == line.rstrip() or line.startswith(tuple(ZOO)) or "name" in line for line in lines)


def test_pattern_picks(capsys: pytest.CaptureFixture[str]) -> None:
    main(["encoders", "siglip2-*"])
    out = capsys.readouterr().out
    assert "siglip2-so400m-16-560" in out
    assert "clip-l14-336" not in out


def test_json_is_the_whole_truth(capsys: pytest.CaptureFixture[str]) -> None:
    main(["encoders", "*", "--json"])
    table = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in table] == list(ZOO)
    rice = table[0]
    assert rice["tokens"] == 256
    assert rice["parameters"] == 302_916_640
    assert rice["public"] is False


def test_unknown_pattern_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["encoders", "clip-l14-366"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "clip-l14-336" in error


def test_export_writes_what_transformers_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    import transformers

    import rice

    source = tmp_path / "source"
    torch.manual_seed(0)
    config = transformers.MLCDVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    transformers.MLCDVisionModel(config).save_pretrained(source)
    main(["export", f"rice:{source}", "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    exported = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    encoder = rice.load_encoder(f"rice:{source}")
    pixels = torch.rand(1, 3, 56, 56)
    with torch.no_grad():
        theirs = exported(pixel_values=encoder.normalise(pixels)).last_hidden_state[:, 1:]
    assert (encoder(pixels).patches.flatten(2).transpose(1, 2) - theirs).abs().max() <= 1e-5
