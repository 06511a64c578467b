import io
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from core.errors import SpecError
from core.settings import settings
from core.spec.model import TaskSpec
from core.tasks import archive
from core.tasks.catalogue import read
from core.tasks.upload import save_data_uploads, save_model_upload, save_upload
from tests.core.tasks.pictures import save_classes

WEIGHTS = save({"weight": np.ones((2, 2), dtype=np.float32)})


def zipped(entries: dict[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in entries.items():
            packed.writestr(name, content)
    buffer.seek(0)
    return buffer


def zipped_pets(folder: Path, prefix: str = "") -> io.BytesIO:
    save_classes(folder, 10)
    return zipped({f"{prefix}{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*.png")})


def refused(call, *arguments) -> str:
    with pytest.raises(SpecError) as error:
        call(*arguments)
    return str(error.value)


def nothing_is_left(home: Path) -> bool:
    return not list(home.glob("incoming-*")) and not list(home.glob("uploads/*"))


def test_text_is_kept_by_its_content_and_can_be_used(home):
    content = b"a line of text\n" * 500
    source = save_upload("../My book!.txt", io.BytesIO(content), home)
    assert source.startswith("file:") and source.endswith("/My_book_.txt")
    assert read(TaskSpec(source=source)).texts["train"].startswith("a line of text")
    assert save_upload("../My book!.txt", io.BytesIO(content), home) == source  # sent again
    assert save_upload("My book!.txt", io.BytesIO(content + b"x"), home) != source
    assert len(list((home / "uploads").iterdir())) == 2 and not list(home.glob("incoming-*"))


@pytest.mark.parametrize("prefix", ["", "pets/", "__MACOSX"])
def test_zip_of_class_folders_becomes_an_image_task(home, tmp_path, prefix):
    stream = zipped_pets(tmp_path / "pets", prefix if prefix != "__MACOSX" else "")
    if prefix == "__MACOSX":
        with zipfile.ZipFile(stream, "a") as packed:
            packed.writestr("__MACOSX/cats/._0.png", b"litter")
        stream.seek(0)
    data = read(TaskSpec(source=save_upload("pets.zip", stream, home)))
    assert data.class_names == ("cats", "dogs") and sum(map(len, data.labels.values())) == 20


@pytest.mark.parametrize(
    "name", ["../evil.png", "/tmp/evil.png", "cats/../../evil.png", "..\\evil.png", "C:\\evil.png"]
)
def test_zip_cannot_write_outside_of_itself(home, name):
    assert "outside its folder" in refused(save_upload, "pets.zip", zipped({name: b"x"}), home)
    assert nothing_is_left(home)


def test_zip_with_a_symbolic_link_is_refused(home):
    link = zipfile.ZipInfo("cats/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr(link, "/etc/passwd")
    stream.seek(0)
    assert "symbolic link" in refused(save_upload, "pets.zip", stream, home)


def test_zip_cannot_grow_without_bound(home, monkeypatch):
    monkeypatch.setattr(archive, "MOST_UNPACKED", 10_000)
    bomb = zipped({"cats/1.png": bytes(6_000), "dogs/1.png": bytes(6_000)})
    assert "larger than" in refused(save_upload, "pets.zip", bomb, home)
    monkeypatch.setattr(archive, "MOST_FILES", 1)
    assert "more than 1 files" in refused(save_upload, "pets.zip", zipped({"a/1": b"", "b/1": b""}), home)
    assert nothing_is_left(home)


@pytest.mark.parametrize("content", [b"no zip at all", zipped({"a/1.png": b"x" * 1000}).getvalue()[:-30]])
def test_broken_zip_is_refused(home, content):
    assert "cannot be unpacked" in refused(save_upload, "pets.zip", io.BytesIO(content), home)


def test_zip_of_what_are_no_pictures_is_refused(home):
    fake = zipped({"cats/1.png": b"not a picture", "dogs/1.png": b"neither"})
    assert "not an image" in refused(save_upload, "pets.zip", fake, home)
    assert nothing_is_left(home)


def test_binary_file_is_no_text(home):
    assert "UTF-8" in refused(save_upload, "program.exe", io.BytesIO(b"MZ\x90\xff\xfe"), home)


def test_broken_table_is_refused_with_its_line(home):
    assert "line 3" in refused(save_upload, "t.csv", io.BytesIO(b"text,label\na,b\nc\n"), home)


def test_too_large_an_upload_is_refused(home, monkeypatch):
    monkeypatch.setattr(settings(), "upload_mb", 1)
    assert "SLIMBOARD_UPLOAD_MB" in refused(save_upload, "t.txt", io.BytesIO(bytes(1_000_001)), home)
    assert nothing_is_left(home)


@pytest.mark.parametrize("packed", [False, True])
def test_model_is_kept(home, packed):
    entries = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
    if packed:
        files = [("model.zip", zipped({f"my model/{name}": content for name, content in entries.items()}))]
    else:
        files = [(name, io.BytesIO(content)) for name, content in entries.items()]
    source = save_model_upload(files, home)
    folder = home / "uploads" / source.removeprefix("hf:")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == entries


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "tensors.pkl", "modeling.py"])
def test_model_that_could_run_code_is_refused_with_the_reason(home, name):
    files = [("config.json", io.BytesIO(b"{}")), (name, io.BytesIO(b"x"))]
    message = refused(save_model_upload, files, home)
    assert name in message and "can run code" in message and "safetensors" in message
    assert nothing_is_left(home)


def test_incomplete_or_damaged_model_is_refused(home):
    assert "config.json" in refused(save_model_upload, [("model.safetensors", io.BytesIO(WEIGHTS))], home)
    assert ".safetensors" in refused(save_model_upload, [("config.json", io.BytesIO(b"{}"))], home)
    files = [("config.json", io.BytesIO(b"{}")), ("model.safetensors", io.BytesIO(WEIGHTS[:-3]))]
    assert "damaged" in refused(save_model_upload, files, home)


def table(*rows: str) -> io.BytesIO:
    return io.BytesIO("\n".join(["text,label", *rows]).encode())


def test_several_files_become_the_splits_that_they_are_named_after(home):
    train = [f"text {i},{'ab'[i % 2]}" for i in range(40)]
    files = [
        ("my_Test.csv", table("x,a", "y,b")),
        ("reviews-train.csv", table(*train)),
        ("dev.csv", table("z,a", "u,b")),
    ]
    data = read(TaskSpec(**save_data_uploads(files, home)))
    assert len(data.texts["train"]) == 40
    assert set(data.texts["test"]) == {"x", "y"} and set(data.texts["validation"]) == {"z", "u"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train.csv", "more.csv"], "more.csv"),
        (["train.csv", "train_test.csv"], "train_test.csv"),
        (["train.csv", "val.csv", "dev.csv"], "val.csv, dev.csv"),
        (["val.csv", "test.csv"], "no training file"),
    ],
)
def test_files_that_no_split_can_be_told_from_are_refused(home, names, words):
    assert words in refused(save_data_uploads, [(name, table("x,a", "y,b")) for name in names], home)
