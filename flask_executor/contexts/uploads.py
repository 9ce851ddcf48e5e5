"""Bytes that many readers read, each at its own pace.

A request body and its uploaded files are one stream with one position, closed with the
request. :class:`Content` keeps the bytes behind such a stream and opens them as often
as needed; bytes on disk stay there.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import typing as t
from itertools import chain

from werkzeug.datastructures import FileStorage, Headers, ImmutableMultiDict, MultiDict

T = t.TypeVar("T")

_IN_MEMORY = 500_000
"""Bytes kept in memory before they go to a file, as Werkzeug does for uploads."""


class Content:
    """The bytes behind a stream, independent of its position and of its closing.

    Safe to open and read from any number of threads. Pickles by value.
    """

    __slots__ = ("_source",)

    def __init__(self, source: bytes | _Descriptor) -> None:
        self._source = source

    @classmethod
    def behind(cls, stream: t.Any) -> Content:
        """Return all bytes of a seekable stream; its position does not change."""
        if isinstance(stream, tempfile.SpooledTemporaryFile):
            # By itself it would go to disk when asked for a descriptor.
            stream = stream._file
        if isinstance(stream, Reader):
            return stream.content
        if isinstance(stream, io.BytesIO):
            return cls(stream.getvalue())
        if _is_file(stream):
            stream.flush()
            return cls(_Descriptor(os.dup(stream.fileno())))
        position = stream.tell()
        stream.seek(0)
        try:
            return cls.rest_of(stream)
        finally:
            stream.seek(position)

    @classmethod
    def rest_of(cls, stream: t.IO[bytes], length: int | None = None) -> Content:
        """Return the rest of a stream, which is at its end afterwards.

        :param length: how many bytes there should be, if that is known.
        """
        head = b""
        if length is None or length <= _IN_MEMORY:
            head = _read_up_to(stream, _IN_MEMORY + 1)
            if len(head) <= _IN_MEMORY:
                return cls(head)
        with tempfile.TemporaryFile() as file:
            file.write(head)
            shutil.copyfileobj(stream, file, 64 * 1024)
            file.flush()
            if not hasattr(os, "preadv"):  # Windows
                file.seek(0)
                return cls(file.read())
            return cls(_Descriptor(os.dup(file.fileno())))

    def open(self) -> t.IO[bytes]:
        """Return a new reader, at the first byte."""
        if isinstance(self._source, bytes):
            return io.BytesIO(self._source)
        return Reader(self)

    def read_at(self, position: int, buffer: memoryview) -> int:
        """Fill the buffer from that position on, and return the count of bytes."""
        return t.cast(_Descriptor, self._source).read_at(position, buffer)

    def rest_at(self, position: int) -> bytes:
        """Return all bytes from that position on."""
        return t.cast(_Descriptor, self._source).rest_at(position)

    @property
    def size(self) -> int:
        """How many bytes there are."""
        if isinstance(self._source, bytes):
            return len(self._source)
        return self._source.size

    def __reduce__(self) -> tuple[t.Any, ...]:
        with self.open() as reader:
            return type(self), (reader.read(),)


class Reader(io.BufferedReader):
    """A buffered, seekable, read-only file over a :class:`Content` on disk."""

    def __init__(self, content: Content) -> None:
        super().__init__(_RawReader(content))
        self.content: Content = content
        """The content that it reads."""


class _RawReader(io.RawIOBase):
    def __init__(self, content: Content) -> None:
        self._content = content
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any, /) -> int:
        count = self._content.read_at(self._position, memoryview(buffer))
        self._position += count
        return count

    def readall(self) -> bytes:
        # At once: by itself it would read a few kilobytes at a time.
        rest = self._content.rest_at(self._position)
        self._position += len(rest)
        return rest

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._position,
            io.SEEK_END: self._content.size,
        }[whence]
        if start + offset < 0:
            raise ValueError(f"negative seek position {start + offset}")
        self._position = start + offset
        return self._position


class _Descriptor:
    """An open file that no seek of another reader moves, closed with its last user."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read_at(self, position: int, buffer: memoryview) -> int:
        # A duplicated descriptor shares its offset with the original: read beside it.
        return os.preadv(self._fd, [buffer], position)

    def rest_at(self, position: int) -> bytes:
        parts = []
        while part := os.pread(self._fd, max(self.size - position, 0), position):
            parts.append(part)  # one, as long as it is below 2 GB
            position += len(part)
        return b"".join(parts)

    def __del__(self) -> None:
        os.close(self._fd)


class Upload:
    """An uploaded file as it was; each task opens it again."""

    __slots__ = ("_content", "_filename", "_headers", "_name")

    def __init__(self, file: FileStorage) -> None:
        # A view may have closed it; the garbage collector does, with a TextIOWrapper.
        closed = getattr(file.stream, "closed", False)
        self._content = None if closed else Content.behind(file.stream)
        self._filename = file.filename
        self._name = file.name
        self._headers = list(file.headers or ())

    @property
    def was_closed(self) -> bool:
        """True if the view had closed it, so its bytes are gone."""
        return self._content is None

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return 0 if self._content is None else self._content.size

    def open(self) -> FileStorage:
        """Return a new file storage, at the first byte."""
        file = FileStorage(
            io.BytesIO() if self._content is None else self._content.open(),
            filename=self._filename,
            name=self._name,
            headers=Headers(self._headers),
        )
        if self._content is None:
            file.close()
        return file


def keep_uploads(value: T) -> T:
    """Keep the uploaded files among arguments, so that they outlive the view."""
    return t.cast(T, _exchange(value, FileStorage, Upload) if value else value)


def open_uploads(value: T) -> T:
    """Return the arguments again, each uploaded file with its own reader."""
    return t.cast(T, _exchange(value, Upload, Upload.open) if value else value)


def _exchange(value: t.Any, kind: type, to: t.Callable[[t.Any], t.Any]) -> t.Any:
    shape = type(value)  # isinstance would resolve a proxy
    if issubclass(shape, kind):
        return to(value)
    if not _holds(value, kind):
        return value
    if shape is dict:
        return {key: _exchange(item, kind, to) for key, item in value.items()}
    if issubclass(shape, MultiDict):
        pairs = value.items(multi=True)
        return shape([(key, _exchange(item, kind, to)) for key, item in pairs])
    return shape(_exchange(item, kind, to) for item in value)


_HOLDERS = frozenset({list, tuple, dict, MultiDict, ImmutableMultiDict})


def _holds(value: t.Any, kind: type) -> bool:
    """Return True if a container holds one of a kind, at any depth."""
    items, seen = _items(value), {id(value)}
    while items:
        kinds = set(map(type, items))  # much faster than to look at each
        for found in kinds:
            if issubclass(found, kind):
                return True
        if kinds.isdisjoint(_HOLDERS):
            return False
        inner = [i for i in items if type(i) in _HOLDERS and id(i) not in seen]
        seen.update(map(id, inner))
        items = list(chain.from_iterable(map(_items, inner)))
    return False


def _items(value: t.Any) -> t.Collection[t.Any]:
    kind = type(value)
    if kind is list or kind is tuple:
        return t.cast("t.Collection[t.Any]", value)
    if kind is dict:
        return t.cast("t.Collection[t.Any]", value.values())
    if kind in _HOLDERS:
        return [item for _, item in value.items(multi=True)]
    return ()


def _is_file(stream: t.Any) -> bool:
    """Return True if its bytes are those of its descriptor; a GzipFile's are not."""
    raw = getattr(stream, "raw", stream)
    return isinstance(raw, io.FileIO) and hasattr(os, "preadv")


def _read_up_to(stream: t.IO[bytes], count: int) -> bytes:
    parts = []
    while count > 0 and (part := stream.read(min(count, 64 * 1024))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
