"""Damage to files: bytes flipped, cut and moved; and fields of a message, a JSON document or an archive made absurd."""

from __future__ import annotations

import json
import random
import struct
import zipfile
from io import BytesIO
from typing import Any

import onnx

__all__ = ["damaged"]

_NUMBERS = (0, 1, -1, 2, 7, 255, -128, 1 << 15, -(1 << 31), (1 << 31) - 1, 1 << 40, (1 << 63) - 1, -(1 << 63))
_TEXTS = ("", "x", "y", "\0", "../x", "[bold]", "a" * 3000, "\ud7ff", "1e999", "torch.os.system", "__import__('os')")
_FLOATS = (0.0, -1.0, float("nan"), float("inf"), 1e38)


def damaged(content: bytes, kind: str, draw: random.Random) -> bytes:
    """A damaged copy of a file of a kind: ``onnx``, ``pt2``, ``pt``, ``pth``, ``npz`` or ``manifest``."""
    if draw.random() < 0.3:
        return _bytes(content, draw)
    if kind == "onnx":
        return _message(content, draw)
    if kind == "manifest":
        return _document(content, draw)
    if content[:2] == b"PK":
        return _archive(content, draw)
    return _bytes(content, draw)


def _bytes(content: bytes, draw: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        if not data:
            break
        at = draw.randrange(len(data))
        what = draw.randrange(7)
        if what == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif what == 1:
            data[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif what == 2:
            del data[at : at + draw.choice((1, 2, 8, 100))]
        elif what == 3:
            data[at:at] = draw.randbytes(draw.choice((1, 2, 8)))
        elif what == 4:
            data[at : at + 8] = struct.pack("<q", draw.choice(_NUMBERS))[: draw.choice((1, 2, 4, 8))]
        elif what == 5:
            other = draw.randrange(len(data))
            data[at : at + 16] = data[other : other + 16]
        elif draw.random() < 0.3:
            del data[at:]
    return bytes(data)


def _message(content: bytes, draw: random.Random) -> bytes:
    """Some fields of a model, wherever they are, set to something absurd, dropped, doubled or taken from elsewhere."""
    model = onnx.ModelProto.FromString(content)
    places: list[tuple[Any, Any]] = []
    pending: list[Any] = [model]
    while pending:
        message = pending.pop()
        for field, value in message.ListFields():
            places.append((message, field))
            if field.type == field.TYPE_MESSAGE:
                pending.extend(value if _repeated(field) else [value])
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        message, field = draw.choice(places)
        try:
            _spoil(message, field, draw, places)
        except (ValueError, TypeError, AttributeError, OverflowError, IndexError):
            continue  # a value that this field cannot take
    return bytes(model.SerializeToString())


def _repeated(field: Any) -> bool:
    return bool(field.is_repeated) if hasattr(field, "is_repeated") else bool(field.label == field.LABEL_REPEATED)


def _spoil(message: Any, field: Any, draw: random.Random, places: list[tuple[Any, Any]]) -> None:
    if draw.random() < 0.1:
        message.ClearField(field.name)
        return
    value = getattr(message, field.name)
    if not _repeated(field):
        if field.type != field.TYPE_MESSAGE:
            setattr(message, field.name, _absurd(field, draw, places))
        return
    at = draw.randrange(len(value))
    what = draw.randrange(4)
    if what == 0:
        del value[at]
    elif what == 1:
        value.extend([value[at]] * draw.choice((1, 1, 3, 50)))
    elif field.type == field.TYPE_MESSAGE:
        value[at].CopyFrom(value[draw.randrange(len(value))])
    else:
        value[at] = _absurd(field, draw, places)


def _absurd(field: Any, draw: random.Random, places: list[tuple[Any, Any]]) -> Any:
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        same = [getattr(one, other.name) for one, other in places if other.type == field.type and not _repeated(other)]
        text = draw.choice((*_TEXTS, *draw.sample(same, min(3, len(same)))))
        return text.encode() if field.type == field.TYPE_BYTES and isinstance(text, str) else text
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return draw.choice(_FLOATS)
    return draw.choice((*_NUMBERS, *range(-3, 30)))


def _document(content: bytes, draw: random.Random) -> bytes:
    document = json.loads(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        places: list[tuple[Any, Any]] = []
        pending: list[Any] = [document]
        while pending:
            one = pending.pop()
            keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
            places.extend((one, key) for key in keys)
            pending.extend(one[key] for key in keys)
        if not places:
            break
        holder, key = draw.choice(places)
        what = draw.randrange(5)
        if what == 0:
            del holder[key]
        elif what == 1:
            other, at = draw.choice(places)
            if key in (holder if isinstance(holder, dict) else range(len(holder))):
                holder[key] = json.loads(json.dumps(other[at])) if _has(other, at) else None
        else:
            holder[key] = draw.choice((None, True, [], {}, [[]], {"a": 1}, *_NUMBERS, *_TEXTS, *_FLOATS))
    return json.dumps(document).encode()


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else isinstance(key, int) and key < len(holder)


def _archive(content: bytes, draw: random.Random) -> bytes:
    """One member of an archive damaged, renamed, dropped or doubled, the rest as it was."""
    with zipfile.ZipFile(BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = draw.randrange(len(members))
    name, inside = members[at]
    what = draw.randrange(5)
    if what == 0:
        del members[at]
    elif what == 1:
        members.insert(at, draw.choice(members))
    elif what == 2:
        members[at] = (draw.choice((name + "x", "../" + name, draw.choice(members)[0])), inside)
    elif name.endswith(".json"):
        members[at] = (name, _document(inside, draw))
    else:
        members[at] = (name, _bytes(inside, draw))
    written = BytesIO()
    with zipfile.ZipFile(
        written, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as out:
        for name, inside in members:
            out.writestr(name, inside)
    return written.getvalue()
