"""Files are there whole or not at all."""

import errno

import pytest

from guide_rl.atomic_files import put_file, put_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else_and_names_it(tmp_path):
    path = tmp_path / "x.txt"
    put_text(path, "old")

    def fails(partial):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: .*x\.txt"):
        put_file(path, fails)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.txt"]


def test_half_a_surrogate_pair_is_written_as_an_escape(tmp_path):
    put_text(tmp_path / "x.txt", "a\ud800b")
    assert (tmp_path / "x.txt").read_text() == "a\\ud800b"
