"""The released models that ``tempclr convert`` reads: where they are, what is known of the files, how to convert them.

Nothing is downloaded here, and no hash is guessed: where none is public, ``sha256`` is None, and :func:`verify` gives
the one of the file at hand to be compared with a colleague's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from tempclr.errors import InputError

__all__ = ["KNOWN", "KnownCheckpoint", "describe_known", "verify"]

_VIDEOCLIP = "https://dl.fbaipublicfiles.com/MMPT/retri/videoclip/checkpoint_best.pt"
_TEMPCLR = "https://drive.google.com/drive/folders/1aD6l8yp0dsPpRKbmg3a_CBiK6UVN8GrR"
_S3D = "https://www.rocq.inria.fr/cluster-willow/amiech/howto100m"
_DRIVE = "https://drive.google.com/file/d"
_TORCHVISION = "https://download.pytorch.org/models"
_UNSTATED = "not stated for the weights"


@dataclass(frozen=True)
class KnownCheckpoint:
    """One released file.

    Attributes:
        name: what this package calls it.
        what: what the model is and what it was trained on.
        address: the file, or the page from which its authors link it.
        file_name: as published, or None where no document names it.
        convert: the words after ``tempclr convert``; FILE and OUTPUT_DIR stand for paths.
        code: repository and revision of the code it belongs to, which the converter was held against; None where
            there was none to hold it against.
        licence: as stated by its publishers.
        sha256: the hash, whose beginning the publisher tells in the name of the file and the rest those who downloaded
            it; None where nothing is told.
        note: what else one should know.
    """

    name: str
    what: str
    address: str
    file_name: str | None
    convert: str
    code: str | None
    licence: str
    sha256: str | None = None
    note: str = ""


_TOWERS = "FILE OUTPUT_DIR --tokenizer bert-base-uncased"
_TEMPCLR_CODE = "yyuncong/TempCLR@9763ca6"
_MIT_CODE = f"{_UNSTATED}; the code is mostly MIT"
_TCLR_CODE = "DAVEISHAN/TCLR@850efa9"
_MIT = f"{_UNSTATED}; the code is MIT"
KNOWN: dict[str, KnownCheckpoint] = {
    known.name: known
    for known in (
        KnownCheckpoint(
            "videoclip",
            "VideoCLIP, zero-shot, of HowTo100M: what TempCLR starts from",
            _VIDEOCLIP,
            "checkpoint_best.pt",
            f"videoclip {_TOWERS}",
            "facebookresearch/fairseq@3d262bb (examples/MMPT)",
            _MIT,
        ),
        KnownCheckpoint(
            "tempclr-layernorm-otam",
            "TempCLR by OTAM, LayerNorms alone tuned",
            _TEMPCLR,
            "checkpoint_layernorm_OTAM",
            f"tempclr {_TOWERS}",
            _TEMPCLR_CODE,
            _MIT_CODE,
        ),
        KnownCheckpoint(
            "tempclr-layernorm-dtw",
            "TempCLR by DTW, LayerNorms alone tuned",
            _TEMPCLR,
            "checkpoint_layernorm_DTW",
            f"tempclr {_TOWERS}",
            _TEMPCLR_CODE,
            _MIT_CODE,
        ),
        KnownCheckpoint(
            "tempclr-allparameters-dtw",
            "TempCLR by DTW, all parameters tuned",
            _TEMPCLR,
            "checkpoint_allparameters_DTW",
            f"tempclr {_TOWERS}",
            _TEMPCLR_CODE,
            _MIT_CODE,
            note="for zero-shot step localization alone, say its authors: worse at any other task",
        ),
        KnownCheckpoint(
            "s3d-howto100m",
            "S3D-G trained by MIL-NCE on HowTo100M: the features of all of the above",
            f"{_S3D}/s3d_howto100m.pth",
            "s3d_howto100m.pth",
            "s3d FILE OUTPUT_DIR --vocabulary s3d_dict.npy",
            "antoine77340/S3D_HowTo100M@19f80cd",
            _UNSTATED,
            note=f"its words are in {_S3D}/s3d_dict.npy; people report since June 2024 that both addresses are dead",
        ),
        KnownCheckpoint(
            "tclr-r3d18-ucf101",
            "TCLR, R3D-18 of UCF101",
            f"{_DRIVE}/1wGr6KsC4TcRweAGOFwmOYBPeZe0oGV7r/view",
            None,
            "tclr FILE OUTPUT_DIR",
            _TCLR_CODE,
            _MIT,
        ),
        KnownCheckpoint(
            "tclr-r3d18-k400",
            "TCLR, R3D-18 of Kinetics-400",
            f"{_DRIVE}/1m-u8N18dYFqP9B2JF3dEYOowKg3xDrds/view",
            None,
            "tclr FILE OUTPUT_DIR",
            _TCLR_CODE,
            _MIT,
        ),
        KnownCheckpoint(
            "tclr-r2plus1d18-k400",
            "TCLR, R(2+1)D-18 of Kinetics-400",
            f"{_DRIVE}/1cuM4vFJA8wDDYmkQeAhwBUDQD0aDGmqD/view",
            "rpd18kin400.pth",
            "tclr FILE OUTPUT_DIR",
            _TCLR_CODE,
            _MIT,
            note="the name of the file is that of a copy which others pass on",
        ),
        KnownCheckpoint(
            "torchvision-r3d18-k400",
            "R3D-18 trained with the labels of Kinetics-400",
            f"{_TORCHVISION}/r3d_18-b3b3357e.pth",
            "r3d_18-b3b3357e.pth",
            "tclr FILE OUTPUT_DIR --from torchvision",
            None,
            f"{_UNSTATED}; the code is BSD-3-Clause",
            sha256="b3b3357ead25631ec9c57362ff2128a92d0427e01e2cd184951a44380c3f2e9d",
        ),
        KnownCheckpoint(
            "torchvision-r2plus1d18-k400",
            "R(2+1)D-18 trained with the labels of Kinetics-400",
            f"{_TORCHVISION}/r2plus1d_18-91a641e6.pth",
            "r2plus1d_18-91a641e6.pth",
            "tclr FILE OUTPUT_DIR --from torchvision",
            None,
            f"{_UNSTATED}; the code is BSD-3-Clause",
            sha256="91a641e6c2ab531d1aca5f4321b4d802ec5c3babc15df855cdb6e39c6a1107c8",
        ),
    )
}


def verify(path: str | PathLike[str], name: str) -> str:
    """The SHA-256 of a downloaded file, held against what is known of the checkpoint ``name``.

    Returns the hash, 64 hexadecimal digits. Where nothing is known to compare with, it proves nothing by itself: see
    ``KNOWN[name].sha256``.

    Raises:
        InputError: no checkpoint of that name, or the file is another one.
        OSError: it cannot be read.

    >>> KNOWN["videoclip"].sha256 is None
    True
    """
    from tempclr_hub.conversion import file_sha256

    if name not in KNOWN:
        raise InputError(f"no known checkpoint {name!r}: expected one of {', '.join(KNOWN)}")
    found, expected = file_sha256(path), KNOWN[name].sha256
    if expected is not None and not found.startswith(expected):
        raise InputError(f"is not {name}: its sha256 is {found}, expected {expected}", file=Path(path))
    return found


def describe_known() -> Iterator[str]:
    """What ``tempclr convert --list`` prints: some lines for each checkpoint."""
    for known in KNOWN.values():
        yield f"{known.name}: {known.what}"
        yield f"  from     {known.address}" + (f" ({known.file_name})" if known.file_name else "")
        yield f"  convert  tempclr convert {known.convert}"
        yield f"  code     {known.code or 'none was compared'}"
        yield f"  licence  {known.licence}"
        yield f"  sha256   {known.sha256 or 'not known'}"
        if known.note:
            yield f"  note     {known.note}"
