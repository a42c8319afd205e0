"""The real mxnet as a second reader of a pack; the extra [mxnet] installs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dataprep.errors import RecordError
from dataprep.records.pack import Pack


def differences(pack: Pack, mxnet: Any) -> Iterator[str]:
    """Every record whose bytes or labels mxnet reads otherwise than we do, and every image it cannot decode."""
    for number, part in enumerate(pack.records.readers):
        reader = mxnet.recordio.MXRecordIO(str(part.path), "r")
        for offset, payload in part:
            theirs = _read(reader)
            if theirs != payload:
                yield f"part {number}, byte {offset}: {None if theirs is None else len(theirs)} bytes for {len(payload)}"
                break  # it reads on from the wrong place
        reader.close()
    for position in range(len(pack)):
        record = pack.record(position)
        header, image = mxnet.recordio.unpack(pack.records.at(int(pack.index.offsets[pack.positions[position]])))
        if tuple(np.ravel(header.label).tolist()) != record.labels or header.id != record.id or image != record.image:
            yield f"image {position}: header {header}"
        try:
            mxnet.image.imdecode(image)
        except Exception as error:
            yield f"image {position}: {str(error).splitlines()[0]}"


def _read(reader: Any) -> bytes | None:
    """A record, or None where mxnet finds none: it raises its own exceptions."""
    try:
        found: bytes | None = reader.read()
    except Exception:
        return None
    return found


def imported() -> Any:
    """The module; RecordError says how to install it."""
    if not hasattr(np, "bool"):
        vars(np)["bool"] = bool  # mxnet 1.9.1 asks for what numpy 1.24 took away
    try:
        import mxnet
        import mxnet.recordio
    except ImportError as error:
        raise RecordError(
            f"mxnet cannot be imported ({error}): pip install 'face-dataprep[mxnet]' in an environment with numpy 1.26"
        ) from None
    return mxnet
