"""The paper's tables as printed, and measured rows beside them: never mixed, and every difference of protocol said."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from stored_results import of_table_3 as result
from stored_results import protocol_of

from probes.results import Result, documents, load, rows_of, store
from reports.grid import BEST, EMPTY, GRID_WRITERS, Grid
from reports.measurements import measurements
from reports.paper.beside import Beside, beside
from reports.paper.curves import curves, write_curves
from reports.paper.layout import chosen, layout
from reports.paper.printed import TABLES, paper
from reports.paper.tables import paper_csv, paper_grid
from rice.errors import RiceError
from rice.files import sha256_json


def measured(folder: Path, *results: Result) -> list[Beside]:
    for one in results:
        store(folder, one)
    return beside(measurements(rows_of(documents(folder))))


@pytest.mark.parametrize("table", TABLES)
def test_cells_that_are_not_derived_are_shown_as_printed(table: str) -> None:
    grid, plan = paper_grid(table), layout(table)
    lines = [line for line in grid.lines if line.kind != "block"]
    for row, line in zip(paper(table), lines, strict=True):
        shown = dict(zip(plan.columns, line.entries[len(plan.keys) :], strict=True))
        for column, entry in shown.items():
            printed = row.cells.get(column, EMPTY)
            assert entry.text == printed or entry.text.endswith(f" [{printed}]")
        assert (line.kind == "gain") == row.method.startswith("↑")


def test_what_does_not_add_up_shows_both_numbers() -> None:
    texts = [entry.text for line in paper_grid("1").lines for entry in line.entries]
    assert "70.43 [73.03]" in texts
    assert "+2.14 [+2.45]" in texts  # 70.43 - 68.29, not the printed averages' difference
    assert sum("[" in text for text in texts) == 18  # 14 averages and the 4 differences of them
    assert [t for line in paper_grid("3").lines for e in line.entries if "[" in (t := e.text)] == ["24.0 [24.1]"]


def test_table_2_states_the_mean_of_its_differences() -> None:
    labels = [line.entries[0].text for line in paper_grid("2").lines if line.kind == "gain"]
    assert labels == [
        "Avg: +2.00 ↑ Improvement over CLIP",
        "Avg: +2.45 ↑ Improvement over CLIP",
        "Avg: +1.30 ↑ Improvement over MLCD",
    ]


def test_bold_is_the_best_of_its_column_of_its_row_or_of_its_group() -> None:
    def bold(grid: Grid, skip: int) -> list[list[str]]:
        return [[e.text for e in line.entries[skip:] if e.rank == BEST] for line in grid.lines if line.kind == "row"]

    assert [len(texts) for texts in bold(paper_grid("4"), 1)] == [1, 0, 0, 11]  # DINOv2 wins SR-0.5 alone
    assert bold(paper_grid("5b"), 1) == [["35.2"], ["28.6"], ["24.0"], ["19.9"]]
    ocr_bench = [line.entries[7] for line in paper_grid("1").lines if line.kind == "row"]
    assert [entry.text for entry in ocr_bench if entry.rank == BEST] == ["575", "588", "662", "749"]


@pytest.mark.parametrize("table", TABLES)
def test_every_format_has_one_width(table: str) -> None:
    grid = paper_grid(table)
    pipes = [line for line in GRID_WRITERS["markdown"](grid).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in pipes} == {grid.width + 1}
    latex = [line for line in GRID_WRITERS["latex"](grid).splitlines() if line.endswith(r"\\")]
    spans = [[int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)] for line in latex]
    widths = {line.count(" & ") + 1 + sum(n - 1 for n in found) for line, found in zip(latex, spans, strict=True)}
    assert widths == {grid.width}
    html = GRID_WRITERS["html"](grid)
    for row in re.findall(r"<tr.*?</tr>", html):
        spanned = sum(int(n) - 1 for n in re.findall(r"colspan=(\d+)", row))
        assert len(re.findall(r"<t[hd]\b", row)) + spanned == grid.width


def test_latex_has_no_character_that_tex_would_act_on() -> None:
    for table in TABLES:
        body = "".join(GRID_WRITERS["latex"](paper_grid(table)).splitlines()[1:])
        assert not re.search(r"(?<!\\)[%#_^]|[↑\u03c1]", body.replace(r"\resizebox{\textwidth}{!}{%", ""))


def test_measured_rows_stand_below_the_reported_with_their_difference(tmp_path: Path) -> None:
    found = measured(tmp_path, result("box AP", 0.380), result("box AP", 0.390, seed=1), result("mask AP", 0.3, seed=2))
    lines = paper_grid("3", found).lines
    assert [line.kind for line in lines] == ["row"] * 4 + ["block", "row", "gain"]
    row, gain = lines[5:]
    assert [entry.text for entry in row.entries[:5]] == ["rice-b16-512", "ViT-B/16", "512", "38.5 ± 0.7", "30.0"]
    assert [entry.text for entry in gain.entries[3:6]] == ["-0.4", "-1.5", ""]
    assert not any(entry.rank == BEST for line in lines[5:] for entry in line.entries)
    assert paper_grid("3").lines == lines[:4]  # nothing of the reported part changes
    assert found[0].keys == tuple(load(tmp_path)["key"][:2])


def test_a_protocol_like_the_papers_has_no_note_and_any_other_says_what_differs(tmp_path: Path) -> None:
    same = measured(tmp_path / "same", result("box AP", 0.4))
    assert same[0].differs == ()
    config = protocol_of("table3") | {"epochs": 3}
    config["heads"] = config["heads"] | {"channels": 32}
    other = measured(tmp_path / "other", result("box AP", 0.4, n=16, split="val", config=config))
    assert other[0].differs == (
        "16 test items instead of 5,000",
        "split val instead of val2017",
        "epochs 3 instead of 12",
        "heads.channels 32 instead of 256",
    )
    grid = paper_grid("3", other)
    assert grid.lines[5].entries[3].mark == "a"
    assert grid.notes[-1].startswith("a: another protocol than the paper's: 16 test items")


def test_results_that_differ_in_more_than_the_seed_are_never_averaged(tmp_path: Path) -> None:
    config = protocol_of("table3") | {"epochs": 24}
    found = measured(tmp_path, result("box AP", 0.3), result("box AP", 0.4, config=config))
    assert sorted(cell.score.mean for cell in found) == pytest.approx([30.0, 40.0])
    assert len({cell.encoder for cell in found}) == 2


def test_an_encoder_of_ones_own_has_no_reported_number_beside_it(tmp_path: Path) -> None:
    (cell,) = measured(tmp_path, result("box AP", 0.4, encoder="mine", reference="rice:ckpt/rice-b16-512"))
    assert (cell.row, cell.printed, cell.difference) == ("", None, None)
    assert [line.kind for line in paper_grid("3", [cell]).lines][4:] == ["block", "row"]


def test_random_weights_of_a_reported_encoder_are_not_laid_beside_its_numbers(tmp_path: Path) -> None:
    (cell,) = measured(tmp_path, result("box AP", 0.4, trained=False))
    assert (cell.row, cell.encoder) == ("", "rice-b16-512 (untrained)")


def test_the_average_of_measured_domains_is_computed_and_keeps_their_notes(tmp_path: Path) -> None:
    domains = ("aerial", "videogames", "microscopic", "underwater", "documents", "electromagnetic", "real world")
    config = protocol_of("table3", 2)
    results = [
        result(f"{name} AP", 0.1 * i, dataset="roboflow100", split="valid" if i == 1 else "test", config=config, seed=i)
        for i, name in enumerate(domains, start=1)
    ]
    cells = measured(tmp_path, *results)
    row = paper_grid("3", cells).lines[5]
    assert row.entries[-1].text == "40.0"
    assert [entry.mark for entry in row.entries[-8:]] == ["a", "", "", "", "", "", "", "a"]


def test_an_ablation_lays_encoders_into_columns(tmp_path: Path) -> None:
    cells = measured(tmp_path, result("box AP", 0.361, encoder="N 10"), result("box AP", 0.3, encoder="N 7", seed=1))
    own = [cell for cell in cells if cell.table == "5a"]
    assert [(cell.encoder, cell.row, cell.column, cell.printed) for cell in own] == [("N 10", "COCO-Det", "10", 35.2)]
    assert [cell.encoder for cell in cells if cell.table == "3"] == ["N 7"]
    row, gain = paper_grid("5a", cells).lines[-2:]
    assert [entry.text for entry in row.entries] == ["COCO-Det", EMPTY, EMPTY, "36.1", EMPTY]
    assert gain.entries[3].text == "+0.9"


def test_imported_scores_are_laid_beside_table_1_as_it_prints_them(tmp_path: Path) -> None:
    imported: dict[str, Any] = {"probe": "lmms-eval", "encoder": "rice-l14-336", "reference": "rice-l14-336"}
    cells = measured(
        tmp_path,
        result("ocrbench_accuracy", 0.575, dataset="ocrbench", config={"task": 1}, **imported),
        result("anls", 0.79, dataset="docvqa_val", config={"task": 2}, **imported),
        result("pope_f1_score", 0.88, dataset="pope", config={"task": 3}, **imported),
    )
    found = {cell.column: (cell.score.mean, cell.printed) for cell in cells}
    assert found == {"OCRBench": (pytest.approx(575.0), 575.0), "DocVQA": (pytest.approx(79.0), 79.19)}
    assert all(cell.differs[0].startswith("how its language model was trained") for cell in cells)
    assert {cell.line for cell in cells} == {5}


def test_scores_measured_here_say_how_their_model_was_trained_otherwise_than_the_paper_s(tmp_path: Path) -> None:
    own: dict[str, Any] = {"probe": "lmms-eval", "encoder": "RICE", "reference": "rice-l14-336", "dataset": "ocrbench"}

    def differs(folder: str, training: Any, n: int = 1_000) -> tuple[str, ...]:
        found = result("ocrbench_accuracy", 0.58, n=n, config={"training": training, "dtype": "float32"}, **own)
        (cell,) = [cell for cell in measured(tmp_path / folder, found) if cell.table == "1"]
        assert (cell.column, cell.row, cell.score.mean) == ("OCRBench", "RICE ViT-L-14-336px Qwen2.5-7B", 580.0)
        return cell.differs

    asked = ("tasks", "limit", "blind")
    as_printed = {key: value for key, value in protocol_of("table1").items() if key not in asked}
    assert differs("same", as_printed) == ()
    assert differs("other", as_printed | {"lm": "tiny", "lora": 8}) == (
        "lm tiny instead of Qwen/Qwen2.5-7B-Instruct",
        "lora 8 instead of 0",
    )
    assert differs("few", as_printed, n=24) == ("24 test items instead of 1,000",)
    assert "not recorded" in differs("unknown", None)[0]


def test_parts_of_a_benchmark_and_prompts_of_one_s_own_are_told(tmp_path: Path) -> None:
    own: dict[str, Any] = {"probe": "lmms-eval", "encoder": "RICE", "reference": "rice-l14-336"}
    as_printed = {key: value for key, value in protocol_of("table1").items() if key not in ("tasks", "limit", "blind")}
    plain = {"training": as_printed, "system_instruction_sha": None}

    def differs(metric: str, dataset: str, n: int, **config: Any) -> tuple[str, ...]:
        found = result(metric, 0.5, n=n, dataset=dataset, config=plain | config, **own)
        (cell,) = [c for c in measured(tmp_path / sha256_json([metric, n, config]), found) if c.table == "1"]
        return cell.differs

    assert differs("livexiv_vqa", "livexiv_vqa", 60, samples=60, samples_there=9_000) == ("60 of 9,000 questions",)
    assert differs("livexiv_vqa", "livexiv_vqa", 9_000, samples=9_000, samples_there=9_000) == ()
    assert differs("mme_cognition_score", "mme", 260, system_instruction_sha="ab") == ("a system prompt of its own",)
    assert differs("mme_cognition_score", "mme", 2_374) == (), "a file from elsewhere counts the whole task"
    assert differs("mme_perception_score", "mme", 260) == ("260 test items instead of 2,114",)


def test_livexiv_s_mean_stands_for_its_versions(tmp_path: Path) -> None:
    """lmms-eval has six versions and no mean; of a file from elsewhere, which has no mean, each is shown."""
    own: dict[str, Any] = {"probe": "lmms-eval", "reference": "rice-l14-336"}
    versions = [
        result("livexiv_vqa", 0.4 + v / 100, dataset=f"livexiv_vqa_v{v}", encoder=encoder, config={"v": v}, **own)
        for v in range(1, 7)
        for encoder in ("ours", "theirs")
    ]
    mean = result("livexiv_vqa", 0.435, dataset="livexiv_vqa", encoder="ours", config={"v": 0}, **own)
    cells = [cell for cell in measured(tmp_path, *versions, mean) if cell.column == "LiveXivVQA"]
    assert [cell.score.mean for cell in cells if cell.encoder.startswith("ours")] == [pytest.approx(43.5)]
    assert len([cell for cell in cells if cell.encoder.startswith("theirs")]) == 6


def test_a_sweep_of_the_multimodal_probe_fills_tables_1_and_5d(tmp_path: Path) -> None:
    """One result holds all tasks, its metrics are called TASK METRIC."""
    scores = {
        "docvqa_val anls": (0.544, "DocVQA", 54.4),
        "ocrbench ocrbench_accuracy": (0.403, "OCRBench", 403.0),
        "chartqa relaxed_overall": (0.63, "ChartQA", 63.0),
        "infovqa_val anls": (0.382, "InfoVQA", 38.2),
        "mme mme_cognition_score": (384.0, "MME^Cog", 384.0),
        "mmbench_en_dev_static gpt_eval_score": (74.57, "MMB^EN", 74.57),
        "livexiv_vqa livexiv_vqa": (0.4735, "LiveXivVQA", 47.35),
        "pope pope_accuracy": (0.8883, "POPE", 88.83),
    }
    for table, label, reference in (("1", "CLIP", "clip-l14-336"), ("5d", "M 10", "rice-b16-512")):
        own: dict[str, Any] = {"probe": "llava", "encoder": label, "reference": reference, "dataset": "llava"}
        own["config"] = protocol_of("table1" if table == "1" else "table5d")
        results = [
            result(name, value, seed=i, n=layout("1").sources[column].n or 9, **own)
            for i, (name, (value, column, _)) in enumerate(scores.items())
        ]
        cells = [cell for cell in measured(tmp_path / table, *results) if cell.table == table]
        there = {cell.row if table == "5d" else cell.column: cell for cell in cells}
        expected = {column: value for _, column, value in scores.values()}
        if table == "5d":
            expected = {column: expected[column] for column in ("DocVQA", "ChartQA", "InfoVQA", "OCRBench")}
        assert {name: cell.score.mean for name, cell in there.items()} == pytest.approx(expected)
        assert {cell.differs for cell in cells} == {()}
        if table == "5d":
            assert all(cell.difference == pytest.approx(0) for cell in cells)


GENERATED = "masks of generated answers; the paper's authors give [SEG] (our ciou_forced)"
REFERRING = {"refcoco_val": "refCOCO val", "refcoco+_testB": "refCOCO+ testB", "refcocog_test": "refCOCOg test"}


@pytest.mark.parametrize(("number", "line"), [(0, 17), (1, 12)])
def test_a_sweep_of_the_referring_probe_fills_the_block_of_its_language_model(
    number: int, line: int, tmp_path: Path
) -> None:
    """One result holds all splits, its metrics are called SPLIT MEASURE."""
    own: dict[str, Any] = {"probe": "refseg", "encoder": "ours", "reference": "rice-l14-336", "dataset": "lisa"}
    own["config"] = protocol_of("table2", number)
    results = [
        result(f"{name} ciou", 70.5, seed=i, n=layout("2").sources[column].n or 0, split=name.partition("_")[2], **own)
        for i, (name, column) in enumerate(REFERRING.items())
    ]
    cells = measured(tmp_path, *results)
    assert [(cell.table, cell.column) for cell in cells] == [("2", column) for column in REFERRING.values()]
    assert {(cell.line, cell.score.mean, cell.differs) for cell in cells} == {(line, 70.5, (GENERATED,))}


@pytest.mark.parametrize(("number", "line"), [(0, 16), (1, None)])
def test_an_encoder_that_the_paper_has_in_one_framework_alone_is_not_laid_beside_it_from_the_other(
    number: int, line: int | None, tmp_path: Path
) -> None:
    own: dict[str, Any] = {"probe": "refseg", "encoder": "MLCD", "reference": "mlcd-l14-336", "dataset": "lisa"}
    own["config"] = protocol_of("table2", number)
    (cell,) = measured(tmp_path, result("refcoco_val ciou", 70.5, n=10_834, split="val", **own))
    assert (cell.table, cell.line) == ("2", line)
    assert (cell.printed is None) == (line is None)


@pytest.mark.parametrize(("number", "line"), [(0, 17), (1, 12)])
def test_a_judged_model_stands_beside_the_sweeps_of_its_recipe(number: int, line: int, tmp_path: Path) -> None:
    """A result a split, measured on a model whose training is in its configuration."""
    training = {name: value for name, value in protocol_of("table2", number).items() if name not in ("splits", "limit")}
    own: dict[str, Any] = {"probe": "lisa-eval", "encoder": "ours", "reference": "rice-l14-336"}
    own["config"] = {"source": "rice lisa eval", "limit": None, "training": training}
    results = [
        result(
            "ciou",
            60.0,
            seed=i,
            n=layout("2").sources[column].n or 0,
            split=name.partition("_")[2],
            dataset=name,
            **own,
        )
        for i, (name, column) in enumerate(REFERRING.items())
    ]
    cells = measured(tmp_path, *results)
    expected = [(column, line, (GENERATED,)) for column in REFERRING.values()]
    assert [(cell.column, cell.line, cell.differs) for cell in cells] == expected
    assert {cell.score.mean for cell in cells} == {60.0}
    fewer = result("ciou", 60.0, n=100, split="val", dataset="refcoco_val", **own)
    (cell,) = measured(tmp_path / "fewer", fewer)
    assert cell.differs == (GENERATED, "100 test items instead of 10,834")
    other = own | {"config": own["config"] | {"training": training | {"lm": "mini"}}}
    (cell,) = measured(tmp_path / "other", result("ciou", 60.0, n=10_834, split="val", dataset="refcoco_val", **other))
    assert (cell.line, cell.differs) == (None, (GENERATED, f"lm mini instead of {training['lm']}"))


def test_hostile_labels_cannot_leave_their_cell(tmp_path: Path) -> None:
    label = r'a & b \input{x} < b> | "c"'
    cells = measured(tmp_path, result("box AP", 0.4, encoder=label))
    assert "< b> |" not in GRID_WRITERS["html"](paper_grid("3", cells))
    assert r"\input" not in GRID_WRITERS["latex"](paper_grid("3", cells))
    assert r"< b> \|" in GRID_WRITERS["markdown"](paper_grid("3", cells))


def test_csv_has_a_line_a_cell_with_plain_numbers(tmp_path: Path) -> None:
    cells = measured(tmp_path, result("box AP", 0.4), result("box AP", 0.41, seed=1))
    lines = list(csv.DictReader(io.StringIO(paper_csv("3", cells))))
    assert len(lines) == 48 + 1
    assert sum(float(line["printed"]) for line in lines if line["printed"]) == pytest.approx(
        sum(float(text) for row in paper("3") for text in row.cells.values())
    )
    own = lines[-1]
    assert float(own["measured"]) == pytest.approx(40.5)
    assert float(own["difference"]) == pytest.approx(40.5 - 38.9)
    assert own["results"].split() == list(load(tmp_path)["key"])
    assert next(line["recomputed"] for line in lines if line["recomputed"]) == "15.4286"  # 108 / 7


def test_curves_are_drawn_through_the_printed_numbers(tmp_path: Path) -> None:
    cells = measured(tmp_path, result("box AP", 0.361, encoder="N 10"), result("box AP", 0.3, encoder="N 1", seed=1))
    panels = curves(cells).axes
    for axes, table in zip(panels, ("5a", "5b", "5c", "5d"), strict=True):
        scales = [10.0 if row.method == "OCRBench" else 1.0 for row in paper(table)]
        drawn = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
        for row, scale in zip(paper(table), scales, strict=True):
            label = row.method if scale == 1 else f"{row.method} / 10"
            assert drawn[label] == [float(text) / scale for text in row.cells.values()]
    own = panels[0].containers[0].lines[0]
    assert [list(own.get_xdata()), list(own.get_ydata())] == [[0, 2], pytest.approx([30.0, 36.1])]


def test_curves_are_written_as_picture_and_as_vectors(tmp_path: Path) -> None:
    png, pdf = write_curves(tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert b"/Subtype /Image" not in pdf.read_bytes()


def test_tables_are_chosen_by_name_or_by_their_number() -> None:
    assert chosen(()) == TABLES
    assert chosen(("5", "3")) == ("3", "5a", "5b", "5c", "5d")
    for name in ("6", "5e", "", "3a"):
        with pytest.raises(RiceError, match="expected one of"):
            chosen((name,))


def test_the_stored_config_of_a_sweep_is_what_its_protocol_is_compared_with() -> None:
    assert json.loads(json.dumps(protocol_of("table4")))["epochs"] == 100
