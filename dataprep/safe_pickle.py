"""Safe reading of pickles of images and labels, or of weights: nothing in them is executed, and memory is bounded.

A verification set's .bin is a pickle, and a pickle is a program. It is read twice. First a scan checks its opcodes:
only those that lists (for weights: dicts) of bytes and plain arrays need are allowed, and lengths and memo numbers must
fit the file's size. Then Python's own unpickler loads it; every global is a stand-in from this module, and numpy itself
is never called.
Opcodes: Python's Lib/pickletools.py.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dataprep.errors import RecordError

# opcode -> how its argument is stored: a fixed number of bytes, one or two lines, or a byte count and then the data
_FIXED = {
    **dict.fromkeys(b".(]lae)t\x85\x86\x87N\x88\x89\x93Rb\x94", 0),
    **dict.fromkeys(b"\x80Kqh", 1),
    **dict.fromkeys(b"M", 2),
    **dict.fromkeys(b"Jrj", 4),
    **dict.fromkeys(b"\x95", 8),
}
_LINES = {**dict.fromkeys(b"SV", (1, None)), **dict.fromkeys(b"ILpg", (1, 32)), ord("c"): (2, 64)}
_COUNTED = {
    **dict.fromkeys(b"UC\x8c\x8a", 1),
    **dict.fromkeys(b"TBX", 4),
    **dict.fromkeys(b"\x8e\x96\x8d", 8),
}
_PUTS = {ord("q"): 1, ord("r"): 4, ord("p"): 0}
_MAPPINGS = {**dict.fromkeys(b"}sud", 0), ord("G"): 8}
_PLAIN, _NUMBERS = re.compile(r"[biu][1248]|f[48]"), re.compile(r"[biu][1248]|f[248]")


_NOTHING: tuple[int, ...] = (0,)


class PickledArray:
    """The stand-in for a pickled numpy array: a number type, a shape and the bytes.

    `data` is the pickle's own object; several arrays may share it."""

    def __init__(self, *arguments: Any) -> None:
        self._dtype, self._shape = np.dtype("u1"), _NOTHING
        self._order: Literal["C", "F"] = "C"
        self.data: bytes | bytearray = b""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, data = state
        self.fill(shape, dtype, data)
        self._order = "F" if by_columns else "C"

    def fill(self, shape: Any, dtype: Any, data: Any) -> None:
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
            raise RecordError("an array in it does not hold plain numbers")
        sides = shape if isinstance(shape, tuple) else (shape,)
        if not all(isinstance(side, int) and side >= 0 for side in sides):
            raise RecordError(f"an array in it has the shape {str(shape)[:60]}")
        if math.prod(sides) * dtype.plain.itemsize != len(data):
            raise RecordError(f"an array in it claims the shape {str(sides)[:60]} but holds {len(data)} bytes")
        self._dtype, self._shape, self.data = dtype.plain, sides, data

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def values(self) -> npt.NDArray[Any]:
        """The elements as a flat array; a transposed array of several columns is not expected here."""
        return np.frombuffer(self.data, self._dtype)

    def array(self) -> npt.NDArray[Any]:
        """The array, in its shape."""
        return self.values().reshape(self._shape, order=self._order)


class _Dtype:
    allowed = _PLAIN

    def __init__(self, name: Any, *arguments: Any) -> None:
        text = name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
        if not self.allowed.fullmatch(text):
            raise RecordError(f"an array in it is of type {text[:20]!r}; images and truth values are plain numbers")
        self.plain = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        if state[1] in (">", b">"):
            self.plain = self.plain.newbyteorder(">")


class _AnyDtype(_Dtype):
    allowed = _NUMBERS


def load_plain(data: bytes, *, weights: bool = False) -> Any:
    """Load a pickle of lists, tuples, bytes, booleans and numpy arrays (as `PickledArray`); with `weights`, also dicts and
    arrays of floats.

    Python 2's str become bytes. Raises RecordError for anything else, hostile or damaged.
    """
    check_opcodes(data, weights=weights)
    try:
        return _Unpickler(data, weights=weights).load()
    except RecordError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise RecordError(f"not a readable pickle ({type(error).__name__}: {str(error)[:200]})") from None


def check_opcodes(data: bytes, *, weights: bool = False) -> None:
    """Walk the opcodes without executing them. Raises RecordError for an opcode that a .bin does not need, a length
    beyond the end of the file, or a memo number that would make Python reserve more than the file could fill."""
    position, opcodes, end = 0, 0, len(data)
    fixed = {**_FIXED, **_MAPPINGS} if weights else _FIXED
    while position < end:
        code = data[position]
        opcodes += 1
        start = position + 1
        if code in fixed:
            position = start + fixed[code]
        elif code in _COUNTED:
            width = _COUNTED[code]
            position = start + width + int.from_bytes(data[start : start + width], "little")
        elif code in _LINES:
            position = _after_lines(data, start, *_LINES[code])
        else:
            raise RecordError(
                f"its pickle uses opcode {bytes([code])!r} at byte {position}, which "
                f"{'weights do' if weights else 'a list of images does'} not need"
            )
        if position > end:
            raise RecordError(f"it is cut short, or states a wrong length, at byte {start - 1}")
        if code in _PUTS and _memo_number(data[start:position], _PUTS[code]) > opcodes:
            raise RecordError(f"its pickle has an impossible memo number at byte {start - 1}")
        if code == ord("."):
            return
    raise RecordError("not a readable pickle (it has no end)")


def _after_lines(data: bytes, start: int, lines: int, limit: int | None) -> int:
    for _ in range(lines):
        found = data.find(b"\n", start, None if limit is None else start + limit)
        if found < 0:
            raise RecordError(f"not a readable pickle (a line at byte {start} has no end)")
        start = found + 1
    return start


def _memo_number(argument: bytes, width: int) -> int:
    if width:
        return int.from_bytes(argument, "little")
    try:
        return int(argument)
    except ValueError:
        raise RecordError(f"not a readable pickle (memo number {argument[:20]!r})") from None


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, *, weights: bool) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._left = len(data)
        stand_ins: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "ndarray"): PickledArray,
            ("numpy", "dtype"): _AnyDtype if weights else _Dtype,
            ("_codecs", "encode"): self._encode,
        }
        for core in ("core", "_core"):
            stand_ins[f"numpy.{core}.multiarray", "_reconstruct"] = PickledArray
            stand_ins[f"numpy.{core}.multiarray", "scalar"] = _scalar
            stand_ins[f"numpy.{core}.numeric", "_frombuffer"] = _from_buffer
        for builtins in ("builtins", "__builtin__"):
            stand_ins[builtins, "bytes"] = stand_ins[builtins, "bytearray"] = self._bytes
        if weights:
            stand_ins["collections", "OrderedDict"] = _Mapping
        self._stand_ins = stand_ins

    def find_class(self, module: str, name: str) -> Any:
        found = self._stand_ins.get((module, name))
        if found is None:
            raise RecordError(
                f"its pickle refers to {module[:60]}.{name[:60]}; only numpy arrays are loaded, no code is run"
            )
        return found

    def _encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        """How Python 3 writes bytes for Python 2. In total they cannot be longer than the file."""
        self._left -= len(text)
        if self._left < 0 or encoding not in ("latin1", "latin-1", b"latin1"):
            raise RecordError("its pickle reuses text beyond the file's size, or has an unknown encoding")
        return bytes(text.encode("latin1"))

    def _bytes(self, *arguments: Any) -> bytes:
        if not arguments:
            return b""
        if isinstance(arguments[0], str):
            return self._encode(*arguments)
        if len(arguments) == 1 and isinstance(arguments[0], bytes):
            return arguments[0]
        raise RecordError("its pickle makes bytes from something that is not text")


class _Mapping(dict[Any, Any]):
    """An OrderedDict. Attributes that the pickle sets are ignored."""

    def __init__(self, *items: Any) -> None:
        super().__init__(*items)

    def __setstate__(self, state: Any) -> None:
        pass


def _scalar(dtype: Any, data: Any) -> Any:
    """A numpy boolean or integer."""
    if isinstance(data, str):
        data = data.encode("latin1")
    one = PickledArray()
    one.fill((1,), dtype, data)
    return one.values()[0].item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    """How pickle protocol 5 stores arrays."""
    array = PickledArray()
    array.fill(shape, dtype, data)
    return array
