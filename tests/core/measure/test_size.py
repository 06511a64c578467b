import pytest
import torch
from safetensors.torch import save_file

from core.measure.size import tensor_payload


def test_counts_the_bytes_of_the_tensors_and_not_the_header(tmp_path):
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.uint8)}, tmp_path / "m.safetensors", {"k": "v"})
    assert tensor_payload(tmp_path / "m.safetensors") == 3 * 5 * 4 + 7


def test_sums_over_several_files(tmp_path):
    for name in ("main", "draft"):
        save_file({"a": torch.zeros(2, 2, dtype=torch.bfloat16)}, tmp_path / name)
    assert tensor_payload(tmp_path / "main", tmp_path / "draft") == 16


def test_names_of_one_stretch_of_bytes_count_once(tmp_path):
    header = (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    )
    (tmp_path / "tied").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert tensor_payload(tmp_path / "tied") == 8


@pytest.mark.parametrize("content", [b"", b"\x80\x04}", b"\x04\0\0\0\0\0\0\0nope", b"\xff" * 20])
def test_refuses_what_is_not_safetensors(tmp_path, content):
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.bin is not a safetensors file"):
        tensor_payload(tmp_path / "model.bin")


def test_refuses_a_file_that_was_cut(tmp_path):
    file = tmp_path / "m"
    save_file({"a": torch.zeros(100)}, file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is incomplete"):
        tensor_payload(file)
