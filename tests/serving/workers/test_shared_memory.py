from __future__ import annotations

import gc
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserver_pyfunc.serving.workers.wire.shared_memory import (
    KEPT_BYTES,
    SIZE,
    Reader,
    Writer,
    create_arena,
)


@pytest.fixture
def arena() -> int:
    descriptor = create_arena()
    yield descriptor
    os.close(descriptor)


def test_a_reader_sees_in_place_what_the_writer_writes(arena: int) -> None:
    writer, reader = Writer(arena), Reader(arena)
    offset = writer.allocate(5)
    writer.view(offset, 5)[:] = list(b"hello")
    assert bytes(reader.read(offset, 5)) == b"hello"


def test_what_is_read_cannot_be_written(arena: int) -> None:
    Writer(arena).allocate(8)
    array = np.frombuffer(Reader(arena).read(0, 8), dtype=np.uint8)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_a_region_is_released_once_its_last_array_is_gone(arena: int) -> None:
    writer, reader = Writer(arena), Reader(arena)
    offset = writer.allocate(64)
    array = np.frombuffer(reader.read(offset, 64), dtype="<f4").reshape(4, 4)
    corner = array[:1, :1]
    del array
    gc.collect()
    assert reader.take_released() == []
    del corner
    gc.collect()
    assert reader.take_released() == [offset]
    assert reader.take_released() == []


@pytest.mark.parametrize(("offset", "size"), [(-1, 4), (SIZE, 1), (SIZE - 4, 8), (0, SIZE + 1)])
def test_refuses_a_region_outside_the_memory(arena: int, offset: int, size: int) -> None:
    with pytest.raises(ValueError, match="outside the shared memory"):
        Reader(arena).read(offset, size)


def test_refuses_what_does_not_fit(arena: int) -> None:
    with pytest.raises(MemoryError, match="do not fit"):
        Writer(arena).allocate(SIZE + 1)


def test_nobody_can_shrink_it(arena: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(arena, 4096)


def test_gives_surplus_memory_back(arena: int) -> None:
    writer = Writer(arena)
    size = KEPT_BYTES + 8 * 2**20
    offset = writer.allocate(size)
    writer.view(offset, size)[:] = 1
    assert os.fstat(arena).st_blocks * 512 >= size
    writer.release(offset)
    assert os.fstat(arena).st_blocks * 512 <= KEPT_BYTES


def test_ignores_the_release_of_what_is_not_in_use(arena: int) -> None:
    writer = Writer(arena)
    writer.release(4096)
    assert writer.allocate(10) == 0
    assert writer.allocate(10) == 4096


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 5)), max_size=40))
def test_regions_in_use_never_overlap_and_all_of_them_can_be_had_again(
    steps: list[tuple[int, int]],
) -> None:
    descriptor = create_arena()
    writer = Writer(descriptor)
    used: list[tuple[int, int]] = []
    try:
        for size, release in steps:
            start = writer.allocate(size)
            for other, length in used:
                assert start + size <= other or other + length <= start
            used.append((start, max(size, 1)))
            if release < len(used):
                writer.release(used.pop(release)[0])
        for start, _ in used:
            writer.release(start)
        assert writer.allocate(SIZE) == 0
    finally:
        os.close(descriptor)


def test_pages_go_back_before_another_writer_can_have_them(arena: int) -> None:
    writer = Writer(arena)
    size = KEPT_BYTES + 4096
    offset = writer.allocate(size)
    meanwhile = []

    class Map:
        """Allocates at the moment at which pages are removed, as another thread may."""

        def madvise(self, *_: int) -> None:
            meanwhile.append(writer.allocate(size))

    writer._map = Map()
    writer.release(offset)
    assert len(meanwhile) == 1
    assert meanwhile[0] >= offset + size
    assert writer.allocate(size) == offset
