"""Statistics of a report: means, spreads, counts and paired intervals whose values are known."""

from math import inf, nan, sqrt

import pytest
import torch
from safetensors.torch import save_file

from realportrait_core.eval.record import CaseRecord, Values, record_path
from realportrait_core.eval.report.distances import frechet_figures
from realportrait_core.eval.report.statistics import Table, difference, summarise
from realportrait_core.eval.rows import FACE_VID2VID, REALPORTRAIT, STATIC, TRUTH


def case(name: str, table: str = "self", **rows: Values) -> CaseRecord:
    """With one metric, "error"; a row's name is given with _ for a blank."""
    frames = {row.replace("_", " "): {"error": values} for row, values in rows.items()}
    return CaseRecord(table, name, len(next(iter(rows.values()))), frames)


def only(tables: list[Table]) -> Table:
    (table,) = tables
    return table


def test_mean_and_spread_are_over_the_cases_means():
    """Not over the frames: those of a longer case would count more."""
    table = only(summarise([case("a", RealPortrait=[1, 3]), case("b", RealPortrait=[5, 5, 5, 5]), case("c", RealPortrait=[8])]))
    found = table.rows[REALPORTRAIT]["error"]
    assert found.mean == 5 and found.spread == 3  # of 2, 5, 8
    assert (found.cases, found.of_cases, found.frames, found.of_frames) == (3, 3, 7, 7)
    assert (table.cases, table.frames, table.metrics) == (3, 7, ("error",))


def test_what_could_not_be_measured_is_counted_and_in_no_mean():
    records = [case("a", RealPortrait=[1, 3]), case("b", RealPortrait=[5, None]), case("c", RealPortrait=[None, nan, inf])]
    found = only(summarise(records)).rows[REALPORTRAIT]["error"]
    assert found.mean == 3.5 and found.spread == pytest.approx(3 / sqrt(2))
    assert (found.cases, found.of_cases, found.frames, found.of_frames) == (2, 3, 3, 7)


def test_a_row_that_was_never_measured_has_no_number():
    found = only(summarise([case("a", RealPortrait=[None, None])])).rows[REALPORTRAIT]["error"]
    assert found.mean is None and found.spread is None and found.difference is None
    assert (found.cases, found.of_cases, found.frames, found.of_frames) == (0, 1, 0, 2)


def test_one_value_for_a_case_counts_cases_alone():
    records = [
        CaseRecord("long", name, 2, {REALPORTRAIT: {}}, {REALPORTRAIT: {"seam": value}})
        for name, value in (("a", 1.0), ("b", 2.0), ("c", None))
    ]
    found = only(summarise(records)).rows[REALPORTRAIT]["seam"]
    assert (found.mean, found.cases, found.of_cases, found.frames, found.of_frames) == (1.5, 2, 3, 0, 0)


def test_the_difference_is_paired():
    """Cases differ by hundreds and the rows by 1 in each: an interval of unpaired means would be as wide as the cases are apart."""
    records = [case(str(i), Face_Vid2vid=[level + 1], RealPortrait=[level]) for i, level in enumerate((0.0, 100.0, 400.0, 900.0))]
    found = only(summarise(records)).rows[FACE_VID2VID]["error"]
    assert found.spread > 400
    assert (found.difference.mean, found.difference.low, found.difference.high, found.difference.cases) == (1, 1, 1, 4)
    assert found.difference.is_clear


def test_the_interval_of_a_known_distribution():
    """Differences 0 and 1, five times each: the sum of ten draws is binomial, its 2.5th and 97.5th percentiles are 2 and 8."""
    found = difference([(1.0, 1.0)] * 5 + [(3.0, 2.0)] * 5)
    assert (found.mean, found.low, found.high) == (0.5, pytest.approx(0.2), pytest.approx(0.8))
    assert found.is_clear and found == difference([(1.0, 1.0)] * 5 + [(3.0, 2.0)] * 5)
    around = difference([(1.0, 2.0), (2.0, 1.0)] * 5)
    assert around.mean == 0 and around.low == pytest.approx(-0.6) and not around.is_clear


def test_there_is_no_interval_of_one_case():
    found = difference([(3.0, 2.0)])
    assert (found.mean, found.low, found.high, found.cases) == (1, None, None, 1) and not found.is_clear
    assert difference([]) is None


def test_only_cases_that_both_rows_have_are_compared():
    """In b the other method has no video, in c RealPortrait found no face."""
    records = [
        case("a", RealPortrait=[1], other=[2]),
        CaseRecord("self", "b", 1, {REALPORTRAIT: {"error": [100.0]}}, left_out={"other": "There is no video."}),
        case("c", RealPortrait=[None], other=[50]),
        case("d", RealPortrait=[3], other=[6]),
    ]
    table = only(summarise(records))
    other = table.rows["other"]["error"]
    assert (other.cases, other.of_cases, other.difference.mean, other.difference.cases) == (3, 4, 2, 2)
    assert other.difference.low == 1 and other.difference.high == 3
    assert table.rows[REALPORTRAIT]["error"].difference is None


def test_tables_are_apart_and_rows_and_metrics_in_order():
    last = CaseRecord("cross", "b", 1, {"other": {"z": [1.0], "y": [1.0]}, REALPORTRAIT: {"y": [1.0]}, STATIC: {"y": [1.0]}})
    first, second = summarise([case("a", RealPortrait=[1]), last], metrics=("y", "never"))
    assert (first.name, second.name) == ("self", "cross")
    assert tuple(second.rows) == (STATIC, REALPORTRAIT, "other") and second.metrics == ("y", "z")
    assert "z" not in second.rows[REALPORTRAIT]
    assert summarise([]) == []


def test_frechet_distances_are_of_all_frames_of_a_table(tmp_path):
    """Not the mean of the cases' distances: two clouds of three points each, moved by (3, 4), are 25 apart."""
    pytest.importorskip("torchmetrics")
    cloud = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [5.0, 1.0], [4.0, 3.0], [2.0, 2.0]])
    records = []
    for name, part in (("a", cloud[:2]), ("b", cloud[2:])):
        path = record_path(tmp_path, "self", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        moved = part + torch.tensor([3.0, 4.0])
        save_file({f"{TRUTH}/inception": part, f"{REALPORTRAIT}/inception": moved}, path.with_suffix(".safetensors"))
        records.append(case(name, RealPortrait=[0.0] * len(part)))
    records.append(case("no features", RealPortrait=[0.0]))
    record_path(tmp_path, "self", "damaged").with_suffix(".safetensors").write_bytes(b"damaged")
    records.append(case("damaged", RealPortrait=[0.0]))
    found = frechet_figures(tmp_path, records)
    assert list(found) == [REALPORTRAIT] and list(found[REALPORTRAIT]) == ["fid"]
    figure = found[REALPORTRAIT]["fid"]
    assert figure.mean == pytest.approx(25, abs=1e-3)
    assert (figure.cases, figure.of_cases, figure.frames, figure.of_frames) == (2, 4, 6, 8)
