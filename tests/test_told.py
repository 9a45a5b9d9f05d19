"""What a run tells of its videos, kept as plain text and numbers."""

import math

import pytest

from bayesfs.errors import DataError
from bayesfs.told import Told

TOLD = Told(
    causes={"v1": "May be wrong: keys or mug."},
    levels={"v1": {"population": 0.1, "class": 0.2}},
    advice=[("U1", "One more video of keys by itself would help.", 0.05), ("U2", "Enough.", None)],
)


def test_it_comes_back_as_it_was_kept(tmp_path) -> None:
    TOLD.save(tmp_path / "told.json")
    assert Told.load(tmp_path / "told.json") == TOLD
    advice = TOLD.report_advice()
    assert advice[0].gain == 0.05
    assert math.isnan(advice[1].gain)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"causes": 1, "levels": {}, "advice": []}', '{"causes": {}, "levels"']
)
def test_a_damaged_file_is_named(tmp_path, text: str) -> None:
    path = tmp_path / "told.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"told\.json: not what bayesfs wrote there"):
        Told.load(path)
