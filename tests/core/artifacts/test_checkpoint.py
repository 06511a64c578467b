import torch

from core.artifacts.checkpoint import load_state, save_state


def test_nested_state_comes_back_with_its_types_and_keys(tmp_path):
    shared = torch.arange(3.0)
    state = {"a": [shared, shared, 2.5, None, "text"], "b": {0: {"step": torch.tensor(4)}, 1: True}, "c": {}}
    save_state(tmp_path / "state.safetensors", state)
    loaded = load_state(tmp_path / "state.safetensors")
    assert loaded["b"][0]["step"] == 4 and loaded["b"][1] is True and loaded["c"] == {}
    assert loaded["a"][2:] == [2.5, None, "text"]
    assert torch.equal(loaded["a"][0], shared) and torch.equal(loaded["a"][1], shared)


def test_the_old_state_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, {"n": 1})
    (tmp_path / "state.partial").write_bytes(b"half")
    assert load_state(path) == {"n": 1}
    save_state(path, {"n": 2})
    assert load_state(path) == {"n": 2}
