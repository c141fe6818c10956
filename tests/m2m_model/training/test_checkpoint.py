from pathlib import Path

import pytest
import torch

from m2m_model.files import LocalFiles
from m2m_model.training import checkpoint


def test_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        checkpoint.write(LocalFiles(tmp_path), step, {"step": step, "weights": torch.ones(2)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002.pt", "step-00000010.pt"]
    assert checkpoint.newest(LocalFiles(tmp_path))["step"] == 10


def test_a_torn_file_falls_back_to_the_one_before(tmp_path: Path) -> None:
    checkpoint.write(LocalFiles(tmp_path), 1, {"step": 1})
    checkpoint.write(LocalFiles(tmp_path), 2, {"step": 2})
    torn = tmp_path / "step-00000002.pt"
    torn.write_bytes(torn.read_bytes()[:20])
    assert checkpoint.newest(LocalFiles(tmp_path))["step"] == 1


@pytest.mark.parametrize(
    "content", [b"", bytes(4096), b"<html>Slow Down</html>", b"u.", b"h\x34.", b"X\x02\x00\x00\x00\xff\xff."]
)
def test_other_bytes_are_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    """Some are a pickle that ends in IndexError, KeyError or UnicodeDecodeError."""
    checkpoint.write(LocalFiles(tmp_path), 1, {"step": 1})
    LocalFiles(tmp_path).write("step-00000002.pt", content)
    assert checkpoint.newest(LocalFiles(tmp_path))["step"] == 1


def test_nothing_there(tmp_path: Path) -> None:
    assert checkpoint.newest(LocalFiles(tmp_path / "none")) is None
