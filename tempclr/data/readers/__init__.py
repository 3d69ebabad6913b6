"""Readers: official files of a corpus in, dataset rows out. One file a corpus; ``prepare_corpus`` writes the rows."""

from __future__ import annotations

from tempclr.data.readers.activitynet import read_activitynet
from tempclr.data.readers.coin import read_coin
from tempclr.data.readers.crosstask import crosstask_splits, read_crosstask
from tempclr.data.readers.didemo import agreed_span, read_didemo
from tempclr.data.readers.howto100m import read_howto100m
from tempclr.data.readers.preparation import PreparationReport, prepare_corpus
from tempclr.data.readers.youcook2 import read_youcook2

__all__ = [
    "PreparationReport",
    "agreed_span",
    "crosstask_splits",
    "prepare_corpus",
    "read_activitynet",
    "read_coin",
    "read_crosstask",
    "read_didemo",
    "read_howto100m",
    "read_youcook2",
]
