"""Labelled frames: `Embeddings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bayesfs._utils.display import Card, Shown
from bayesfs.errors import DataError, ShapeError
from bayesfs.types.labels import CONDITIONS
from bayesfs.types.level_names import LevelNames, plural
from bayesfs.types.missing import refuse_missing, refuse_missing_codes
from bayesfs.types.owned import ours, owned
from bayesfs.types.table import read_table

LEVELS = "bayesfs_levels"
"""Attribute of the dataset that holds its `LevelNames`."""


NAMES_SHOWN = 60
"""Characters of the features' names that are shown."""


@dataclass(frozen=True, repr=False)
class Embeddings(Shown):
    """Labelled frame embeddings: a validated copy of one xarray Dataset.

    The dataset has `features` (frame, feature) and the coordinates `user`, `object`, `video`,
    `condition` (one of `CONDITIONS`) and `split` over `frame`; optionally `quality` (frame,
    covariate), `flag_*` coordinates (1 true, 0 false, -1 not annotated) and `path`. Frames of one
    video are contiguous and in order of time.

    Raises:
        DataError: a variable or coordinate is missing, a name is None, NaN or NA, or a feature is
            not finite.
    """

    dataset: xr.Dataset

    REQUIRED = ("user", "object", "video", "condition", "split")

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset", owned(self.dataset))
        ds = self.dataset
        if "features" not in ds or ds["features"].dims != ("frame", "feature"):
            got = {name: v.dims for name, v in ds.data_vars.items()}
            raise DataError(
                f"expected a variable 'features' with dims (frame, feature), got {got}; "
                "was this written by `bayesfs features`?"
            )
        missing = [name for name in self.REQUIRED if name not in ds.coords]
        if missing:
            raise DataError(f"expected coordinates {self.REQUIRED} over frame, missing {missing}")
        for name in self.REQUIRED:
            refuse_missing(ds[name].values, name)
            refuse_missing_codes(ds[name].values, name)
        unknown = sorted(set(np.unique(ds["condition"].values)) - set(CONDITIONS))
        if unknown:
            raise DataError(f"expected condition to be one of {CONDITIONS}, got {unknown}")
        finite = np.isfinite(ds["features"].values).all(axis=1)
        if not finite.all():
            videos = sorted(set(ds["video"].values[~finite].tolist()))
            raise DataError(
                f"{int((~finite).sum())} frames have NaN or infinite features, first in video "
                f"{videos[0]!r}; a corrupt image or an overflow in the backbone?"
            )

    @classmethod
    def of_own(cls, dataset: xr.Dataset) -> Embeddings:
        """Of a dataset whose arrays nobody else holds, which are not copied."""
        return cls(ours(dataset))

    @classmethod
    def from_arrays(
        cls,
        features: np.ndarray[Any, Any],  # (frame, feature)
        *,
        object: Sequence[str],
        video: Sequence[str] | None = None,
        user: Sequence[str] | str = "user",
        condition: Sequence[str] | str = "clean",
        split: Sequence[str] | str = "train",
        quality: Mapping[str, np.ndarray[Any, Any]] | None = None,
    ) -> Embeddings:
        """Build embeddings from plain arrays; without `video` every frame is a video of its own.

        Args:
            features: (frame, feature) embeddings.
            object: class name of each frame.
            video: video name of each frame; names must be unique across users and objects.
            user: one user for all frames, or one per frame.
            condition: recording condition, one of `CONDITIONS`, for all frames or per frame.
            split: "train", "validation" or "test", for all frames or per frame.
            quality: covariate name -> (frame,) measured quality.

        Returns:
            Embeddings with `features` as float32.

        Raises:
            ShapeError: features is not two-dimensional or a label has another length.
            DataError: a feature is not finite, a condition is unknown, or a name is None, NaN, NA,
                bytes or an integer below 0 (what pandas and scikit-learn code as missing).
        """
        x = np.asarray(features)
        if x.ndim != 2:
            raise ShapeError(f"expected features of shape (frame, feature), got {x.shape}")
        n = len(x)
        labels: dict[str, Any] = {
            "user": user,
            "object": object,
            "video": [f"frame-{i:06d}" for i in range(n)] if video is None else video,
            "condition": condition,
            "split": split,
        }
        coords: dict[str, Any] = {}
        for name, value in labels.items():
            if isinstance(value, str):
                coords[name] = ("frame", np.full(n, value))
                continue
            if np.ndim(value) == 1:
                refuse_missing(value, name)
                refuse_missing_codes(value, name)
            column = np.array(value, dtype=str)
            if column.shape != (n,):
                raise ShapeError(
                    f"expected {n} values of {name}, one per frame, got {column.shape}"
                )
            coords[name] = ("frame", column)
        ds = xr.Dataset({"features": (("frame", "feature"), x.astype(np.float32))}, coords=coords)
        if quality:
            table = np.stack([np.asarray(q, np.float32) for q in quality.values()], axis=1)
            ds["quality"] = (("frame", "covariate"), table)
            ds = ds.assign_coords(covariate=list(quality))
        return cls.of_own(ds)

    @classmethod
    def from_dataframe(
        cls,
        frame: Any,
        *,
        label: str,
        group: str | None = None,
        cluster: str | None = None,
        features: Sequence[str] | None = None,
        split: str | None = None,
    ) -> Embeddings:
        """Build embeddings from a table of pandas, polars or another library that narwhals reads.

        The columns' names become the words of the levels (`levels`): axes, tables, sentences and
        reports then speak of schools and visits. Features stay as they are, in double precision
        and in their own units; `bayesfs.features.reduction.Standardise` is for them.

        Args:
            frame: one row an observation.
            label: column of what is to be recognised, such as "class"; rows whose text there is
                empty ("") are asked about without being taught.
            group: column of whose labels these are, such as "school": one task each, and the level
                that other groups teach something about; all rows are of one group by default.
            cluster: column of what makes rows dependent, such as "visit", which counts as one piece
                of evidence; every row is a cluster of its own by default. Names need be unique only
                within a label of a group.
            features: columns of numbers; all others that are numeric or boolean by default.
            split: column with "train" for the groups that a population is learnt from and "test"
                for those that are predicted; all are "train" by default.

        Raises:
            DataError: `frame` is no data frame, a column is missing or holds no numbers, or a name
                or number is missing.

        Example:
            >>> import pandas as pd
            >>> table = pd.DataFrame({"class": ["a", "b"], "school": "s1", "height": [1.0, 2.5]})
            >>> Embeddings.from_dataframe(table, label="class", group="school").features.tolist()
            [[1.0], [2.5]]
        """
        table = read_table(
            frame, label=label, group=group, cluster=cluster, features=features, split=split
        )
        coords = {name: ("frame", values) for name, values in table.names.items()}
        dataset = xr.Dataset(
            {"features": (("frame", "feature"), table.features)},
            coords={**coords, "feature": list(table.columns)},
            attrs={LEVELS: table.levels.to_json()},
        )
        return cls.of_own(dataset)

    @property
    def levels(self) -> LevelNames:
        """What the data call the levels."""
        return LevelNames.of_json(str(self.dataset.attrs.get(LEVELS, "")))

    def __len__(self) -> int:
        return int(self.dataset.sizes["frame"])

    @property
    def features(self) -> np.ndarray[Any, Any]:
        """(frame, feature) array of embeddings."""
        return np.asarray(self.dataset["features"].values)

    def coord(self, name: str) -> np.ndarray[Any, Any]:
        """Values of one coordinate over frames, such as `user` or `flag_blur_issue`."""
        return np.asarray(self.dataset[name].values)

    def where(self, **labels: str | Sequence[str]) -> Embeddings:
        """Frames whose coordinates take the given value or one of the given values.

        Raises:
            DataError: no frame at all has a value that is asked for.
        """
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in labels.items():
            values = [wanted] if isinstance(wanted, str) else list(wanted)
            here = np.isin(self.coord(name), values)
            if values and len(self) and not here.any():
                known = np.unique(self.coord(name)).tolist()
                asked = [str(value) for value in values[:4]]
                raise DataError(f"no frame has {name} {asked}; there are {known[:8]}")
            keep &= here
        return Embeddings.of_own(self.dataset.isel(frame=np.flatnonzero(keep)))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the features, where they are columns of a table; or ()."""
        named = self.dataset.coords.get("feature")
        return () if named is None else tuple(map(str, named.values))

    def with_features(
        self, features: np.ndarray[Any, Any], columns: Sequence[str] = ()
    ) -> Embeddings:
        """The same frames and labels with other features (frame, feature), named or not."""
        rest = self.dataset.drop_vars("features").drop_dims("feature", errors="ignore")
        named = rest.assign_coords(feature=list(columns)) if columns else rest
        return Embeddings(named.assign(features=(("frame", "feature"), features)))

    def _card(self) -> Card:
        """Sizes, and how many of what each split holds."""
        levels = self.levels
        rows = [
            (split, *(len(set(part.coord(name).tolist())) for name in names), len(part))
            for names in [("user", "object", "video")]
            for split in dict.fromkeys(self.coord("split").tolist())
            for part in [self.where(split=split)]
        ]
        count, named = self.dataset.sizes["feature"], ", ".join(self.columns)
        if len(named) > NAMES_SHOWN:
            named = f"{named[:NAMES_SHOWN]}..."
        features = f"{count} ({named})" if named else count
        facts = [(plural(levels.row), len(self)), ("features", features)]
        words = ("split", "users", "object names", "videos", "frames")
        columns = tuple(levels.in_words(word) for word in words)
        return Card("Embeddings", facts, columns, rows)
