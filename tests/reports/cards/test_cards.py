"""Model cards: the hub's own tools read back what was measured, and no text of a result becomes more than text."""

import dataclasses
import json
import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.repocard_data import model_index_to_eval_results
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from probes.dense.probe import DenseConfig
from probes.detection.config import DetectionConfig
from probes.protocol import Metric, identity
from probes.results import Identity, Result, documents, store
from probes.sweeps.overrides import flags, parse_config
from probes.sweeps.sweepfile import read_sweep
from reports.cards.groups import clean
from reports.cards.hub import card, folder_name, write_cards
from reports.cards.text import escape
from rice.encoders.spec import EncoderSpec
from rice.errors import RiceError

SPEC = EncoderSpec(name="vit", source="timm:vit", patch=16, size_multiple=16, width=8, native_size=64, licence="mit")
HOSTILE = (
    "a\nlicense: evil",
    "---",
    "a: b # c",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<!-- a -->",
    "[click](javascript:alert(1))",
    "![x](https://x.example/y.png)",
    "| a | b |",
    "`code` *b* _i_ ~~s~~ $m$",
    "# heading\n\n- item",
    "```\n~~~",
    "../../../etc/passwd",
    "yes",
    "1.0",
    "null",
    "- a",
    "{a: 1}",
    "'\"\\",
    "\ud800",
    "\x00\x1b[31m",
    "\u202eevil",
    "&lt;b&gt;",
    "",
    " ",
    "ViT, größer 大",
    "trailing \\",
    "a\\!b\\|c",
    "trailing #",
)
TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40))
KEYED = TEXT.map(lambda text: text.encode("utf-8", "replace").decode())
"""What may stand in a result's identity: its hash is of UTF-8."""


def document(**changes: Any) -> dict[str, Any]:
    """A result as the store would hand it over. `identity` and `spec` hold changes of these parts."""
    spec = dataclasses.asdict(SPEC) | changes.pop("spec", {})
    measured = {
        "encoder_fingerprint": "e" * 64, "size": 64, "layer": -1, "probe": "dense", "protocol_version": 1,
        "dataset_fingerprint": "d" * 64, "config": {"grid": "native"},
    } | changes.pop("identity", {})  # fmt: skip
    fields: dict[str, Any] = {
        "encoder": "ViT", "reference": "timm:vit@64", "weights": "default", "trained": True, "encoder_spec": spec,
        "identity": measured, "seed": 0, "dataset": "scenes", "tokens": 16, "gflops": 0.5, "images_per_s": 100.0,
        "resolved_config": {}, "metrics": [metric()], "versions": {"torch": "2.15.0"}, "commit": None, "device": "cpu",
        "seconds": 1.0, "peak_memory": {"host": 1}, "finished": "2026-01-01T00:00:00+00:00",
    } | changes  # fmt: skip
    return fields | {"schema": 1, "key": Identity(**measured).result_key(fields["seed"])}


def metric(**changes: Any) -> dict[str, Any]:
    fields = {
        "name": "mIoU", "value": 0.5, "n": 10, "unit": "fraction", "higher_is_better": True, "split": "val",
        "stderr": None, "protocol": "macro mean over classes",
    }  # fmt: skip
    return fields | changes


def seeds(values: Sequence[float], **changes: Any) -> list[dict[str, Any]]:
    return [document(seed=s, metrics=[metric(value=v)], **changes) for s, v in enumerate(values)]


def metadata(made: ModelCard) -> Any:
    """The block as YAML reads it, without huggingface_hub's own parser."""
    return yaml.safe_load(str(made).split("---\n")[1])


def test_the_hubs_tools_read_back_what_was_measured(tmp_path: Path) -> None:
    values = [0.41, 0.4375, 0.4025]
    (path,) = write_cards(seeds(values), tmp_path)
    name, (result,) = model_index_to_eval_results(metadata_load(path)["model-index"])
    assert name == "ViT"
    assert result.metric_value == pytest.approx(100 * statistics.mean(values), rel=1e-5)
    assert (result.task_type, result.dataset_name, result.dataset_split) == ("image-segmentation", "scenes", "val")
    assert result.dataset_revision == "d" * 64
    data = ModelCard.load(path).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "timm", "image-feature-extraction")
    assert {"rice-suite", "dense"} <= set(data.tags)
    text = ModelCard.load(path).text
    assert f"| {100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f} | 3 | 10 |" in text
    for result_document in seeds(values):
        assert result_document["key"] in text


def test_cards_are_made_of_what_the_store_yields(tmp_path: Path) -> None:
    for encoder in ("one", "two"):
        store(
            tmp_path,
            Result(
                **{
                    k: v
                    for k, v in document(encoder=encoder).items()
                    if k not in ("schema", "key", "identity", "metrics")
                },
                identity=Identity(**document(identity={"encoder_fingerprint": encoder})["identity"]),
                metrics=[Metric(**metric())],
            ),
        )
    paths = write_cards(documents(tmp_path), tmp_path / "site")
    assert paths == [tmp_path / "site" / "cards" / name / "README.md" for name in ("one", "two")]
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    "change",
    [
        {"identity": {"config": {"grid": "matched"}}},
        {"identity": {"encoder_fingerprint": "f" * 64}},
        {"identity": {"dataset_fingerprint": "c" * 64}},
        {"identity": {"protocol_version": 2}},
        {"identity": {"size": 512}},
        {"identity": {"layer": -2}},
        {"metrics": [metric(value=0.3, split="train")]},
        {"metrics": [metric(value=0.3, protocol="another")]},
        {"metrics": [metric(value=0.3, unit="px")]},
        {"dataset": "others"},
    ],
    ids=str,
)
def test_results_that_differ_in_more_than_the_seed_are_never_averaged(change: dict[str, Any]) -> None:
    first, second = document(metrics=[metric(value=0.1)]), document(seed=1, metrics=[metric(value=0.3)])
    both = card("ViT", [first, second])
    changed = document(**{"seed": 1, "metrics": [metric(value=0.3)]} | change)
    split = card("ViT", [first, changed])
    assert [result.metric_value for result in both.data.eval_results] == [20.0]
    found = sorted(result.metric_value for result in split.data.eval_results)
    assert found == ([0.3, 10.0] if changed["metrics"][0]["unit"] == "px" else [10.0, 30.0])
    assert "±" not in "".join(line for line in split.text.splitlines() if line.startswith("| 1 "))


@pytest.mark.parametrize(
    ("stated", "fields"),
    [
        ("apache-2.0", {"license": "apache-2.0"}),
        ("MIT", {"license": "mit"}),
        ("My own licence", {"license": "other", "license_name": "my-own-licence"}),
        (None, {}),
        ("", {}),
        (["mit"], {}),
    ],
)
def test_the_licence_is_what_the_spec_states_and_nothing_else(stated: Any, fields: dict[str, str]) -> None:
    made = card("ViT", [document(spec={"licence": stated})])
    assert {k: v for k, v in metadata(made).items() if k.startswith("license")} == fields
    assert ("Licence: not stated" in made.text) == (not fields)


def test_imported_results_are_said_to_be_and_no_library_is_invented_for_them() -> None:
    spec = dict.fromkeys(dataclasses.asdict(SPEC)) | {"name": "x", "source": "imported", "norm": "none"}
    made = card(
        "x",
        [
            document(
                reference="imported:x",
                device="unknown (imported)",
                spec=spec,
                tokens=None,
                gflops=None,
                identity={"size": None, "layer": None, "probe": "mteb"},
            )
        ],
    )
    assert "library_name" not in metadata(made)
    assert "**Imported:** measurements 1" in made.text
    assert "```yaml" not in made.text
    assert metadata(made)["model-index"][0]["results"][0]["task"] == {"type": "image-feature-extraction"}


@pytest.mark.parametrize(
    ("reference", "weights", "base"),
    [
        ("dinov2-b14-518@448,layer=-2", "default", "facebook/dinov2-base"),
        ("dinov2-b14-518", "random", None),
        ("dinov2-b14-518", "mine.safetensors", None),
        ("rice-b16-512", "default", None),
        ("hf:some/folder", "default", None),
        ("", "default", None),
    ],
)
def test_a_base_model_is_named_only_where_it_is_known(reference: str, weights: str, base: str | None) -> None:
    made = card("x", [document(reference=reference, weights=weights, trained=weights != "random")])
    assert metadata(made).get("base_model") == base
    assert ("Untrained" in made.text) == (weights == "random")


@pytest.mark.parametrize(
    ("weights", "asked"), [("default", "default"), ("random", None), ("mine.safetensors", "PATH")], ids=str
)
@pytest.mark.parametrize("config", [DenseConfig(grid="matched", learning_rates=(0.1,)), DetectionConfig(milestones=())])
def test_the_sweep_file_of_a_card_asks_for_the_same_measurement(
    config: Any, weights: str, asked: str | None, tmp_path: Path
) -> None:
    probe = "dense" if isinstance(config, DenseConfig) else "detection"
    measured = {"probe": probe, "config": json.loads(json.dumps(identity(config)))}
    changes = {"identity": measured, "weights": weights, "trained": weights != "random"}
    made = card("Mine: a", [document(seed=seed, **changes) for seed in (0, 3)])
    block = re.search(r"```yaml\n(.*?)\n```", made.text, re.DOTALL)
    assert block is not None
    (tmp_path / "card.yaml").write_text(block[1])
    sweep = read_sweep(str(tmp_path / "card.yaml"), [f"scenes={tmp_path}"])
    (entry,) = sweep.probes
    again = parse_config(type(config), flags(entry.overrides), "card")
    assert identity(again) == identity(config)
    assert (sweep.seeds, sweep.encoders[0].label) == ((0, 3), "Mine: a")
    assert (str(sweep.encoders[0].reference), sweep.encoders[0].weights) == ("timm:vit@64", asked)


@settings(deadline=None)
@given(st.lists(TEXT, min_size=2, max_size=12, unique=True))
def test_folders_are_plain_names_and_distinct_labels_never_share_one(labels: list[str]) -> None:
    labels += [folder_name(label) for label in labels]  # as one would to claim another's folder
    names = {label: folder_name(label) for label in labels}
    assert len(set(names.values())) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,99}", name) for name in names.values())


@settings(max_examples=40, deadline=None)
@given(label=TEXT, protocol=KEYED, dataset=TEXT, name=KEYED, licence=TEXT, reference=TEXT)
def test_no_text_of_a_result_changes_the_metadata(
    label: str, protocol: str, dataset: str, name: str, licence: str, reference: str
) -> None:
    made = card(
        label,
        [
            document(
                encoder=label,
                dataset=dataset,
                reference=reference,
                metrics=[metric(name=name, protocol=protocol, split=name)],
                spec={"licence": licence, "note": protocol},
                versions={name: protocol},
                identity={"config": {name: protocol}},
            )
        ],
    )
    content = str(made).encode().decode()  # writable as UTF-8
    again = ModelCard(content)
    allowed = {"license", "license_name", "library_name", "pipeline_tag", "tags", "base_model", "model-index"}
    assert metadata(made).keys() <= allowed
    assert again.data.model_name == clean(label)
    (result,) = again.data.eval_results
    assert (result.dataset_name, result.dataset_split) == (clean(dataset), clean(name))
    assert result.metric_value == 50.0
    assert again.text.startswith("\n# ")


@settings(max_examples=40, deadline=None)
@given(label=KEYED, protocol=KEYED, dataset=TEXT, name=KEYED)
def test_no_text_of_a_result_becomes_markup(label: str, protocol: str, dataset: str, name: str) -> None:
    changes: dict[str, Any] = {
        "encoder": label,
        "dataset": dataset,
        "device": protocol,
        "reference": name,
        "metrics": [metric(name=name, protocol=protocol)],
        "spec": {"licence": name.strip() or "x", "note": protocol.strip() or "x", "name": label.strip() or "x"},
        "versions": {name: protocol},
        "identity": {"config": {name: protocol, "list": [label]}, "encoder_fingerprint": protocol},
    }
    found, plain = _tokens(card(label, [document(**changes)]).text), _tokens(card("ViT", [document(**PLAIN)]).text)
    assert [token.type for token in found] == [token.type for token in plain]
    assert [kind for token in found for kind in _inline(token)] == [kind for token in plain for kind in _inline(token)]


PLAIN: dict[str, Any] = {
    "metrics": [metric()],
    "spec": {"licence": "x", "note": "x", "name": "x"},
    "identity": {"config": {"x": "x", "list": ["x"]}},
}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_reads_as_it_was(text: str) -> None:
    assert shown(text) == clean(text)


@settings(deadline=None)
@given(TEXT)
def test_any_text_reads_as_it_was(text: str) -> None:
    assert shown(text) == clean(text)


def shown(text: str) -> str | None:
    """What a table's cell and a heading show of an escaped text; None where it is more than text, or they differ."""
    tokens = _tokens(f"# {escape(text)}\n\n| head |\n| --- |\n| {escape(text)} |\n")
    heading, _, cell = (token for token in tokens if token.type == "inline")
    texts = ["".join(child.content for child in token.children or []) for token in (heading, cell)]
    return texts[0] if texts[0] == texts[1] and not _inline(heading) and not _inline(cell) else None


def test_mistyped_facts_of_a_spec_are_left_out() -> None:
    text = card("ViT", [document(spec={"paper": {"a": 1}, "patch": True, "source": None, "width": math.nan})]).text
    assert not re.search(r"^- (Paper|Patch size|Source|Width):", text, re.MULTILINE)


def test_nothing_is_written_where_one_card_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_cards([document(encoder="a"), {**document(encoder="b"), "encoder_spec": {}}], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "site" / "cards").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "site" / "cards" / "vit").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RiceError):
        write_cards([document(encoder="vit")], tmp_path / "site")
    assert not list((tmp_path / "elsewhere").iterdir())


def _tokens(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


def _inline(token: Token) -> list[str]:
    """Kinds of inline markup; text in pieces is one text."""
    return [child.type for child in token.children or [] if child.type not in ("text", "text_special")]
