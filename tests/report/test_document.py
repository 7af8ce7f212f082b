"""The report: the numbers of hand-made records, whole pages, and nothing that is not there."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from msgspec.structs import replace

from cifar_lightning.report.document import write
from cifar_lightning.results import store
from cifar_lightning.results.records import Record
from cifar_lightning.results.study_results import Study
from tests.report import handmade
from tests.report.handmade import curve, outcome, record
from tests.report.pages import Page, markdown_labels, markdown_tables

HOSTILE = "<b>&|_x_*[y](z)`"
MLP = (0.55, 0.56, 0.57)


def studied() -> dict[str, list[Record]]:
    """A study in which every section has something to say."""
    sizes = {10: 0.75, 100: 0.78, 10_000: 0.5}
    return {
        "cnn": [
            record(
                curve(50, train_loss=(1.5, 0.33), val_acc=(0.4, 0.77), seconds=60.0), test=outcome(0.76, mistakes=2)
            ),
            record(failed="NaN in train/loss; try <script>alert(1)</script>", seed=1),
        ],
        "mlp": [
            record(curve(50, val_acc=(0.4, best)), seed=seed, model="MLP", test=outcome(0.5 + seed / 100))
            for seed, best in enumerate(MLP)
        ],
        "mlp_no_batch_norm": [
            record(curve(50, val_acc=(0.3, best)), {"model.batch_norm": False}, seed=seed, model="MLP")
            for seed, best in enumerate((0.53, 0.535, 0.54))
        ],
        "batch_size": [record(curve(20, val_acc=acc), {"data.batch_size": size}) for size, acc in sizes.items()],
        "batch_size_updates": [
            record(curve(20, val_acc=0.3), {"data.batch_size": 10, "trainer.limit_train_batches": 4})
        ],
        "dropout": [record(curve(20, val_acc=0.1), {"model.dropout": 1.0})],
        "learning_rate": [record(curve(20, val_acc=0.45), {"model.lr": 1e-4}, model="MLP")],
        HOSTILE: [replace(record(curve(2, val_acc=0.6666), {"model.width": 7}), command=f"fit --name {HOSTILE}")],
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    return store.read(handmade.write(handmade.study(folder, studied(), pending={"cnn": [2]})))


@pytest.fixture(scope="module")
def text(study: Study) -> str:
    return write(study).read_text()


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def markdown(study: Study, text: str) -> str:
    return (study.folder / "report.md").read_text()


def contents(folder: Path) -> dict[str, bytes]:
    files = [folder / "report.html", folder / "report.md", *(folder / "figures").iterdir()]
    return {path.name: path.read_bytes() for path in files}


def test_the_same_records_give_the_same_bytes(study: Study, text: str, tmp_path: Path) -> None:
    other = handmade.write(handmade.study(tmp_path / "another place", studied(), pending={"cnn": [2]}))
    strange = {"PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONPATH": str(Path.cwd())}
    code = f"""
import sys
from cifar_lightning.report.command import report
assert report([{str(other)!r}]) == 0
print(*(name for name in ("torch", "lightning", "matplotlib.pyplot") if name in sys.modules))
"""
    environment = os.environ | strange
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert not done.stderr
    assert done.stdout == f"written to {other / 'report.html'}\n\n"
    assert contents(study.folder) == contents(other)


@pytest.mark.parametrize(
    ("rows", "cells"),
    [
        (("CNN", "train loss"), ["0.3272", "0.3300", "no", "n = 1", "+0.0028"]),
        (("CNN", "best validation accuracy"), ["0.7749", "0.7700", "yes", "n = 1", "\u22120.0049"]),
        (("CNN", "test accuracy"), ["0.7692", "0.7600", "yes", "n = 1", "\u22120.0092"]),
        (("CNN", "seconds"), ["4,871.5", "3,000.0", "\u2013", "n = 1", "\u22121,871.5", "\u2013"]),
        (("MLP", "best validation accuracy"), ["0.5582", "0.5600\u00a0\u00b1\u00a00.0100 s0 s1 s2", "yes", "3"]),
        (("MLP", "test accuracy"), ["0.5540", "0.5100\u00a0\u00b1\u00a00.0100 s0 s1 s2", "yes", "3", "\u22120.0440"]),
        (("CNN without batch norm", "train loss"), ["0.5655", "\u2013", "open", "0", "\u2013", "\u2013"]),
        (("Batch size at equal epochs: best validation accuracy", "batch size 10"), ["0.7558", "0.7500"]),
        (("Dropout rate: best validation accuracy", "dropout 1"), ["0.1009", "0.1000"]),
    ],
)
def test_the_original_numbers_stand_beside_ours(page: Page, rows: tuple[str, ...], cells: list[str]) -> None:
    assert page.row(*rows)[1 : 1 + len(cells)] == cells


def test_ablations_are_paired(page: Page) -> None:
    # 0.02, 0.025, 0.03: mean 0.025, sd 0.005, and t(0.975, 2) = 4.3027 gives 0.0124 at either side.
    cells = ["+0.0250", "0.0050", "3", "+0.0126\u00a0to\u00a0+0.0374", "yes", "+0.0264"]
    assert page.row("Best validation accuracy", "batch norm, MLP")[1:7] == cells
    assert page.row("Best validation accuracy", "dropout, MLP")[1:6] == ["\u2013", "\u2013", "0", "\u2013", "unknown"]


def test_networks_are_compared_in_the_table_and_a_single_seed_borrows_its_answer(page: Page) -> None:
    # Seed 0: 0.77 less 0.55. The MLP's seeds have sds of 0.01 and 0.005, pooled 0.0079 with 4 degrees of freedom:
    # 2.7764 * 0.0079057 * sqrt(2) = 0.0310.
    row = page.row("Best validation accuracy", "CNN instead of MLP")
    interval = "+0.1890\u00a0to\u00a0+0.2510 borrowed"
    assert row[1:7] == ["+0.2200", "\u2013", "n = 1", interval, "yes (borrowed)", "+0.2167"]
    assert page.row("Test accuracy", "CNN instead of MLP")[1:4] == ["+0.2600", "\u2013", "n = 1"]
    drawn = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert not any("CNN instead of MLP" in each for each in drawn)


def test_garbled_digits_are_named(page: Page) -> None:
    garbled = "CNN without dropout (digits partly garbled in the original)"
    assert page.row(garbled, "train loss")[3] == "open"


def test_sweeps_say_updates_and_the_original(page: Page) -> None:
    # The MLP's seeds lend the noise, as above: 0.0310 at either side.
    little = ["\u22120.0300", "\u22120.0610\u00a0to\u00a0+0.0010 borrowed", "no (borrowed)"]
    much = ["\u22120.2800", "\u22120.3110\u00a0to\u00a0\u22120.2490 borrowed", "yes (borrowed)"]
    found = [cells for table in page.tables if table[0][0] == "batch size" for cells in table[1:]]
    assert found == [
        ["10", "equal epochs", "0.001", "80,000", "0.7500", "n = 1", *little, "0.7558"],
        ["10", "equal updates", "0.001", "80", "0.3000", "n = 1", "\u2013", "\u2013", "unknown", "\u2013"],
        ["100", "equal epochs", "0.001", "8,000", "0.7800", "n = 1", "\u2013", "\u2013", "\u2013", "0.7868"],
        ["10,000", "equal epochs", "0.001", "80", "0.5000", "n = 1", *much, "0.5083"],
    ]
    assert "Not run yet: Batch size with scaled learning rate." in page.words


def test_sweeps_are_paired_with_the_standard_value(tmp_path: Path) -> None:
    # 0.03, 0.035, 0.04: mean 0.035, sd 0.005, and t(0.975, 2) = 4.3027 gives 0.0124 at either side.
    accuracies = {1e-3: (0.50, 0.52, 0.54), 1e-2: (0.53, 0.555, 0.58)}
    records = [
        record(curve(20, val_acc=acc), {"model.lr": rate}, seed=seed, model="MLP")
        for rate, values in accuracies.items()
        for seed, acc in enumerate(values)
    ]
    page = Page(write(handmade.study(tmp_path, {"learning_rate": records})).read_text())
    (table,) = (table for table in page.tables if table[0][0] == "learning rate")
    assert table[0][3] == "less that of 0.001"
    assert [row[:1] + row[3:6] for row in table[1:]] == [
        ["0.001", "\u2013", "\u2013", "\u2013"],
        ["0.01", "+0.0350", "+0.0226\u00a0to\u00a0+0.0474", "yes"],
    ]


def test_time_stands_beside_the_originals(page: Page) -> None:
    (table,) = (table for table in page.tables if "images/s" in table[0])
    assert table[1] == ["CNN", "3,000.0", "n = 1", "60.00", "667", "4,871.5", "411"]


def test_the_summary_is_made_of_the_numbers(page: Page) -> None:
    assert "the CNN's is 0.7700 (n = 1; the original report: 0.7749) and the MLP's is 0.5600" in page.words
    assert "gain by batch norm: MLP +0.0250." in page.words
    assert "Of 16 runs that the study asks for, 1 failed and 1 has not been made (which)." in page.words


def test_every_link_leads_somewhere(study: Study, page: Page) -> None:
    hrefs = page.values("href")
    anchors = {href.removeprefix("#") for href in hrefs if href.startswith("#")}
    folders = {unquote(href) for href in hrefs if not href.startswith("#")}
    assert anchors <= set(page.values("id"))
    assert folders == {f"{each.folder}/" for each in study.records.values()}
    assert all((study.folder / folder / "result.json").is_file() for folder in folders)


def test_the_page_is_whole_and_needs_nothing_else(text: str, page: Page) -> None:
    assert text.startswith("<!doctype html>")
    assert not page.unclosed
    assert len(set(page.values("id"))) == len(page.values("id"))
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text.replace("url(#", "")
    assert not {tag for tag, _, _ in page.attributes} & {"script", "link", "iframe", "object"}
    assert all(source.startswith("data:image/png;base64,") for source in page.values("src"))
    assert len(text) < 2_000_000


def test_what_is_said_of_a_picture_is_there_for_those_who_cannot_see_it(page: Page) -> None:
    drawn = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(drawn) == sum((tag, name) == ("svg", "viewbox") for tag, name, _ in page.attributes)
    assert all(drawn)
    assert "test image 0: cat, taken for dog" in page.values("alt")


def test_names_are_words_and_nothing_else(text: str, page: Page, markdown: str) -> None:
    assert page.row(HOSTILE, HOSTILE)[1] == "0.6666"
    assert "<script" not in text
    assert "<b>" not in text
    assert "<b>" not in markdown
    assert f"fit --name {HOSTILE}" in page.words
    assert "<script" not in markdown
    assert "try <script>alert(1)</script>" in page.words


def test_markdown_says_the_same(page: Page, markdown: str) -> None:
    theirs = [table for table in markdown_tables(markdown) if table[0][0] != "image"]
    assert [[row for row in table if any(row)] for table in theirs] == [
        [squeezed(row + [""] * (len(table[-1]) - len(row))) for row in table] for table in page.tables
    ]
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert markdown_labels(markdown) == squeezed(labels)


def squeezed(row: list[str]) -> list[str]:
    return [" ".join(cell.split()) for cell in row]


def test_markdown_shows_what_is_there(study: Study, markdown: str) -> None:
    shown = {line for line in markdown.replace("(", "\n").replace(")", "\n").split("\n") if line.startswith("figures/")}
    assert {Path(name).name for name in shown} == {
        path.name
        for path in (study.folder / "figures").iterdir()
        if path.suffix == ".svg" or path.name.startswith("mistake")
    }
    assert all(path.with_suffix(".png").is_file() for path in (study.folder / "figures").glob("*.svg"))


def test_pictures_that_are_no_longer_shown_go_and_other_files_stay(tmp_path: Path) -> None:
    made = handmade.study(tmp_path, {"cnn": [record(curve(2))]})
    write(made)
    before = contents(tmp_path)
    more = record(curve(2), model="MLP", test=outcome(0.5, mistakes=2))
    write(handmade.study(tmp_path, {"cnn": [record(curve(2))], "mlp": [more]}))
    shown = contents(tmp_path).keys() - before.keys()
    assert {"curves_mlp.svg", "curves_mlp.png", "mistake_mlp_1.png"} < shown
    own = {"my_diagram.svg": b"own", "photo.png": b"own", "curves_own.png": b"own", "notes.txt": b"own"}
    for name, content in own.items():
        (tmp_path / "figures" / name).write_bytes(content)
    write(made)
    assert contents(tmp_path) == before | own


@pytest.mark.parametrize(
    "experiments",
    [
        {},
        {"cnn": []},
        {"cnn": [record(failed="out of memory")]},
        {"mlp": [record(curve(1), model="MLP")], "learning_rate": [record(curve(1), {"model.lr": 0.1})]},
        {"cnn_no_dropout": [record([{k: v for k, v in row.items() if "clean" not in k} for row in curve(4)])]},
        {"mlp": [record(curve(3), model="MLP", environment={}, images=0, test=outcome(0.1, mistakes=0))]},
    ],
)
def test_what_is_missing_is_said(experiments: dict[str, list[Record]], tmp_path: Path) -> None:
    made = handmade.write(handmade.study(tmp_path, experiments, pending={"dropout": [0]}))
    page = Page(write(store.read(made)).read_text())
    assert not page.unclosed
    assert "Not run yet: Dropout rate." in page.words
    assert page.row("not run yet", "Dropout rate") == ["Dropout rate", "0"]


def test_a_test_that_failed_is_said_beside_the_curves(tmp_path: Path) -> None:
    failed = replace(record(curve(4), {"trainer.max_epochs": 4}), status="failed", reason="cifar10: no test images")
    longer = replace(record(curve(4), {"trainer.max_epochs": 9}, seed=1), status="failed", reason="nan, later")
    made = handmade.study(tmp_path, {"cnn": [failed, longer]}, epochs={"cnn": 4})
    page = Page(write(made).read_text())
    assert page.row("failed", "CNN, seed 0") == ["CNN, seed 0", "cifar10: no test images"]
    assert "nan, later" not in page.words
    assert "n = 2" in page.words


def test_a_failed_run_has_no_parameters(tmp_path: Path) -> None:
    failed = replace(record(failed="out of memory"), parameters=0)
    page = Page(write(handmade.study(tmp_path, {"cnn": [failed]})).read_text())
    (table,) = (table for table in page.tables if table[0][1:2] == ["status"])
    assert table[-1][1:4] == ["failed", "0", "\u2013"]


def test_the_rules_of_the_statements_are_stated(page: Page) -> None:
    assert "not supported if one of them is refuted" in page.words


def test_an_empty_plan_has_a_report(tmp_path: Path) -> None:
    page = Page(write(handmade.study(tmp_path, {})).read_text())
    assert "The plan asks for no runs." in page.words
    assert "Neither the CNN nor the MLP has been trained yet." in page.words


def test_synthetic_images_are_named_loudly_and_compared_with_nothing(tmp_path: Path) -> None:
    experiments = {"mlp": [record(curve(50), model="MLP", source="synthetic", images=2000, test=outcome(0.5))]}
    page = Page(write(handmade.study(tmp_path, experiments)).read_text())
    assert ("p", "class", "loud") in page.attributes
    assert "NOT CIFAR-10: synthetic images. Every run learnt drawn stand-ins." in page.words
    assert "> **WARNING**" in (tmp_path / "report.md").read_text()
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert labels
    assert all(label.startswith("NOT CIFAR-10: synthetic images: ") for label in labels)
    assert not any("original report" in label for label in labels)
    (table,) = (table for table in page.tables if "reproduced?" in table[0])
    assert {row[3] for row in table[1:] if len(row) > 1} == {"open", "\u2013"}
    assert "another number of images an epoch than 40,000: 2,000." in page.words


def test_differing_machines_are_counted(tmp_path: Path) -> None:
    runs = [record(curve(2), seed=seed, environment={"torch": torch}) for seed, torch in enumerate(("2", "2", "3"))]
    page = Page(write(handmade.study(tmp_path, {"cnn": runs})).read_text())
    assert page.row("command", "PyTorch") == ["PyTorch", "2 (2 runs); 3 (1 run)"]
    assert page.row("command", "Lightning") == ["Lightning", "not recorded"]


def test_one_run_in_two_experiments_is_listed_once(tmp_path: Path) -> None:
    run = record(curve(50, val_acc=(0.1, 0.7)))
    shared = {"cnn": [run], "batch_size": [replace(run)]}
    page = Page(write(handmade.study(tmp_path, shared, epochs={"batch_size": 20})).read_text())
    (table,) = (table for table in page.tables if table[0][1:2] == ["status"])
    assert [len(row) for row in table[1:]] == [1, 5]
    assert page.row("batch size", "100")[4] == f"{0.1 + 0.6 * 19 / 49:.4f}"
