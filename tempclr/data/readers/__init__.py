"""Readers: official files of a corpus in, dataset rows out. One file a corpus; ``prepare_corpus`` writes the rows."""

from __future__ import annotations

from tempclr.data.readers.action_preparation import ActionReport, prepare_actions
from tempclr.data.readers.activitynet import read_activitynet
from tempclr.data.readers.coin import read_coin
from tempclr.data.readers.crosstask import crosstask_splits, read_crosstask
from tempclr.data.readers.didemo import agreed_span, read_didemo
from tempclr.data.readers.diving48 import read_diving48
from tempclr.data.readers.hmdb51 import read_hmdb51
from tempclr.data.readers.howto100m import read_howto100m
from tempclr.data.readers.kinetics import read_kinetics
from tempclr.data.readers.preparation import PreparationReport, prepare_corpus
from tempclr.data.readers.ucf101 import read_ucf101
from tempclr.data.readers.youcook2 import read_youcook2

__all__ = [
    "ActionReport",
    "PreparationReport",
    "agreed_span",
    "crosstask_splits",
    "prepare_actions",
    "prepare_corpus",
    "read_activitynet",
    "read_coin",
    "read_crosstask",
    "read_didemo",
    "read_diving48",
    "read_hmdb51",
    "read_howto100m",
    "read_kinetics",
    "read_ucf101",
    "read_youcook2",
]
