"""The pickle inside a torch checkpoint, read as data: tensors, plain containers, and stand-ins for a few settings.

No object of a class is ever made and no function of the file is ever called, so there is nothing that could run.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch

from tempclr.errors import InputError

__all__ = ["MAX_PICKLE_BYTES", "Inert", "Storage", "read_pickle"]

MAX_PICKLE_BYTES = 32 * 2**20
MAX_OPCODES = 1_000_000
MAX_DIMENSIONS = 8

STORAGE_DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
PARAMETER = "torch._utils._rebuild_parameter"
DICTS = ("collections.OrderedDict", "collections.defaultdict")
# What training programs keep beside their weights: settings (parsed arguments, omegaconf's containers and fairseq's
# own classes of settings), numbers of numpy, bytes as Python 3 writes them for Python 2.
STOOD_IN_FOR = {
    "argparse.Namespace",
    "_codecs.encode",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "pathlib.PosixPath",
    "torch.Size",
    "torch.device",
    "typing.Any",
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("dict", "list", "tuple", "set")),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("str", "int", "float", "bool")),
    *(f"torch.{name}" for name in ("float16", "float32", "float64", "bfloat16", "int64")),
}
STOOD_IN_FOR_MODULES = ("omegaconf.", "fairseq.")
KEYS = (str, bytes, int, float, bool, type(None))
MOST = 2**60  # below the modulus of Python's hash of integers, so that keys cannot be made to collide


@dataclass
class Inert:
    """What comes in place of an object of another package: the name of its class, its arguments and state, as data."""

    name: str
    arguments: Any = ()
    state: Any = None


@dataclass(frozen=True)
class Storage:
    """Values of one dtype that tensors look into, as the pickle declares them; ``key`` says where the file has them."""

    key: str
    dtype: torch.dtype
    num_values: int


@dataclass(frozen=True)
class _Global:
    name: str


def read_pickle(
    stream: io.BytesIO, *, tensor_values: Callable[[Storage], torch.Tensor | None], stand_ins: Collection[str] = ()
) -> Any:
    """One pickle from ``stream``, which is left behind its end.

    Note [Nothing runs]: the opcodes are told apart by the standard library's ``pickletools`` and interpreted here, one
    by one, into data. A global that is not among the few known ones is refused by its name. ``torch.load`` with
    ``weights_only=True`` refuses them too, but it calls what it allows, follows tuples of any depth when one is a key
    (a megabyte of them ends the process), lets ``OrderedDict`` copy one long list over and over, and reads the state of
    the optimizer along with the weights.

    Args:
        stream: in memory, so that no length the pickle declares can make a read allocate more than there is.
        tensor_values: the values of a storage, one-dimensional; None for a first pass that makes no tensors (they
            read as None).
        stand_ins: names of further classes to read as :class:`Inert`.

    Raises:
        InputError: a global that is not known, an opcode that ``torch.save`` does not write, or a damaged pickle.
    """
    return _Reader(tensor_values, stand_ins).read(stream)


class _Reader:
    def __init__(self, tensor_values: Callable[[Storage], torch.Tensor | None], stand_ins: Collection[str]):
        self.tensor_values, self.stand_ins = tensor_values, stand_ins
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def read(self, stream: io.BytesIO) -> Any:
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
                if count >= MAX_OPCODES:
                    raise InputError(f"its pickle has more than {MAX_OPCODES} opcodes, which no list of weights needs")
                if opcode.name == "STOP":
                    return self.stack.pop()
                self._step(opcode.name, argument)
        except InputError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            raise InputError(f"its pickle is damaged ({reason})") from error
        raise InputError("its pickle has no end")

    def _step(self, name: str, argument: Any) -> None:
        match name:
            case "PROTO" | "FRAME":
                pass
            case "NONE":
                self.stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self.stack.append(name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                self.stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES" | "BINSTRING" | "SHORT_BINSTRING":
                self.stack.append(argument)
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                self.stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
            case "MARK":
                self.marks.append(len(self.stack))
            case "TUPLE":
                self.stack.append(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [self.stack.pop() for _ in range(int(name[-1]))]
                self.stack.append(tuple(reversed(items)))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case _:
                self._act(name, argument)

    def _act(self, name: str, argument: Any) -> None:
        match name:
            case "APPEND":
                item = self.stack.pop()
                self._top(list).append(item)
            case "APPENDS":
                items = self._since_mark()
                self._top(list).extend(items)
            case "SETITEM":
                value, key = self.stack.pop(), self.stack.pop()
                self._set_items([key, value])
            case "SETITEMS":
                self._set_items(self._since_mark())
            case "GLOBAL":
                self.stack.append(self._known(argument.replace(" ", ".")[:200]))
            case "STACK_GLOBAL":
                attribute, module = self.stack.pop(), self.stack.pop()
                if type(module) is not str or type(attribute) is not str:
                    raise InputError("its pickle asks for a global by something other than a name")
                self.stack.append(self._known(f"{module[:100]}.{attribute[:100]}"))
            case "REDUCE" | "NEWOBJ":
                arguments, kind = self.stack.pop(), self.stack.pop()
                self.stack.append(self._made(kind, arguments))
            case "BUILD":
                state = self.stack.pop()
                self._build(self.stack[-1], state)
            case "BINPERSID":
                self.stack.append(_storage(self.stack.pop()))
            case _:
                raise InputError(f"its pickle holds the opcode {name}, which torch.save does not write")

    def _known(self, name: str) -> _Global:
        built = name in STORAGE_DTYPES or name in TENSORS or name == PARAMETER or name in DICTS
        if built or name in STOOD_IN_FOR or name.startswith(STOOD_IN_FOR_MODULES) or name in self.stand_ins:
            return _Global(name)
        raise InputError(
            f"it asks for {name[:100]!r}, which is neither a tensor nor a setting: refused, and nothing of the file "
            "was run"
        )

    def _since_mark(self) -> list[Any]:
        first = self.marks.pop()
        items = self.stack[first:]
        del self.stack[first:]
        return items

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise InputError(f"its pickle fills a {type(self.stack[-1]).__name__} as if it were a {kind.__name__}")
        return self.stack[-1]

    def _set_items(self, items: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Anything else would have to be hashed: a tuple of tuples of … is hashed by recursion, without a limit.
            if type(key) not in KEYS or (type(key) is int and abs(key) >= MOST):
                raise InputError(f"its pickle has a key of type {type(key).__name__}, expected text or a small number")
            target[key] = value

    def _made(self, kind: Any, arguments: Any) -> Any:
        if not isinstance(kind, _Global) or not isinstance(arguments, tuple):
            raise InputError("its pickle calls something that is not a function")
        if kind.name in TENSORS:
            storage, offset, size, stride = arguments[:4]
            return self._tensor(storage, offset, size, stride)
        if kind.name == PARAMETER:
            return arguments[0]
        if kind.name in DICTS:
            if len(arguments) > 1 or not all(isinstance(argument, _Global) for argument in arguments):
                raise InputError(f"its pickle copies a container by {kind.name}, which torch.save does not write")
            return {}
        if kind.name in STORAGE_DTYPES:
            raise InputError(f"its pickle calls {kind.name}, which torch.save does not write")
        return Inert(kind.name, arguments)

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, Inert):
            target.state = state
        elif type(target) is not dict:  # of an OrderedDict it is the version numbers of modules, which are not needed
            raise InputError(f"its pickle sets the state of a {type(target).__name__}, which torch.save does not write")

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> torch.Tensor | None:
        if type(size) is not tuple or type(stride) is not tuple or not len(size) == len(stride) <= MAX_DIMENSIONS:
            raise InputError("its pickle has a tensor whose sizes and strides do not match")
        if not isinstance(storage, Storage) or any(not _is_count(number) for number in (offset, *size, *stride)):
            raise InputError("its pickle describes a tensor by something other than a storage and sizes")
        num_values = math.prod(size)
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if num_values > storage.num_values or (num_values and last >= storage.num_values):
            raise InputError(f"a tensor of shape {_shape(size)} looks into {storage.num_values} stored values only")
        values = self.tensor_values(storage)
        return None if values is None else torch.as_strided(values, size, stride, offset)


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number < MOST


def _storage(identifier: Any) -> Storage:
    """From ("storage", type, key, device, number of values), to which old files add a view that must be None."""
    if not isinstance(identifier, tuple) or len(identifier) not in (5, 6) or identifier[0] != "storage":
        raise InputError("its pickle refers to something that is not a storage of values")
    kind, key, _, num_values = identifier[1:5]
    name = kind.name if isinstance(kind, _Global) else "nothing"
    if name not in STORAGE_DTYPES:
        raise InputError(f"its pickle has a storage of {name}, expected one of a known dtype")
    if not isinstance(key, str) or not _is_count(num_values) or identifier[5:] not in ((), (None,)):
        raise InputError("its pickle refers to a storage without a key and a size")
    return Storage(key, STORAGE_DTYPES[name], num_values)


def _shape(size: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, size)) + ")"
