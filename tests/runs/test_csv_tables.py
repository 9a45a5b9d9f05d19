"""Tables that a spreadsheet opens without computing, and that pandas reads back."""

from pathlib import Path

import pandas as pd
import pytest

from bayesfs.runs.csv_tables import write_csv

FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://e")']


@pytest.mark.parametrize("text", FORMULAS)
def test_text_is_no_formula(tmp_path: Path, text: str) -> None:
    write_csv(pd.DataFrame({"video": [text], text: [1]}), tmp_path / "t.csv")
    read = pd.read_csv(tmp_path / "t.csv", lineterminator="\n")
    assert read["video"].tolist() == [f"'{text}"]
    assert read.columns.tolist() == ["video", f"'{text}"]


def test_numbers_and_other_text_stay_as_they_are(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"n": [-0.5, 1e-300], "of": ["-1", "a=b"], "some": ["", -0.25], "i": [-1, 2]}
    )
    write_csv(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == table.to_csv(index=False)
