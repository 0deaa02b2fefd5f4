"""A checkpoint alone rebuilds its model, and says what is wrong with one that cannot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from blocks.contract import SUBJECTS, Subject, tokens
from blocks.written import built
from safetensors import safe_open
from safetensors.torch import save_file

from archdsl import ArchError
from archdsl.compiler.models.checkpoint import load_model


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_a_loaded_model_is_the_saved_one(subject: Subject, tmp_path: Path) -> None:
    model, path, x = subject.model(seed=5), tmp_path / "model.safetensors", tokens(2, 9)
    model.save(str(path))
    other = load_model(path)
    assert other.arch.hash == model.arch.hash
    assert list(other.state_dict()) == list(model.state_dict())
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_the_dtype_is_kept(dtype: str, tmp_path: Path) -> None:
    model = built("embed(dim = 8, vocab = 11) gated_deltanet(heads = 1) lm_head", dtype=dtype)
    model.save(str(tmp_path / "model"))
    assert {str(p.dtype) for p in load_model(tmp_path / "model").parameters()} == {f"torch.{dtype}"}


def test_a_tied_table_is_stored_once(tmp_path: Path) -> None:
    model = built("embed(dim = 8, vocab = 11) gru lm_head(tied = true)")
    model.save(str(tmp_path / "model"))
    with safe_open(str(tmp_path / "model"), "pt") as file:
        names = list(file.keys())
    assert [name for name in names if "embed" in name or "head" in name] == ["embed.weight"]


def test_merged_projections_are_stored_by_their_names(tmp_path: Path) -> None:
    built("embed(dim = 8, vocab = 11) swiglu lm_head").save(str(tmp_path / "model"))
    with safe_open(str(tmp_path / "model"), "pt") as file:
        assert sorted(file.keys()) == [
            "embed.weight", "lm_head.weight", "swiglu.down.weight", "swiglu.gate.weight",
            "swiglu.up.weight",
        ]  # fmt: skip


def test_saving_replaces_a_file_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_text("something else")
    built("embed(dim = 8, vocab = 11) lm_head").save(str(path))
    assert load_model(path).cost.params == 176
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def refused(path: Path) -> str:
    with pytest.raises(ArchError) as caught:
        load_model(path)
    [diagnostic] = caught.value.diagnostics
    return f"{diagnostic.id}: {diagnostic.message}"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere").startswith("missing-file: there is no file")


@pytest.mark.parametrize("content", [b"", b"text", b"\x00" * 100])
def test_what_is_no_safetensors_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    assert refused(path).startswith("not-a-checkpoint: ")


def test_another_programs_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, str(tmp_path / "model"))
    assert "was not saved by archdsl" in refused(tmp_path / "model")


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_are_named(change: str, tmp_path: Path) -> None:
    model, path = built("embed(dim = 8, vocab = 11) swiglu lm_head"), tmp_path / "model"
    model.save(str(path))
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if change == "missing":
        del tensors["swiglu.up.weight"]
    elif change == "extra":
        tensors["other.weight"] = torch.zeros(2)
    else:
        tensors["swiglu.up.weight"] = torch.zeros(2, 2)
    save_file(tensors, str(path), metadata)
    message = refused(path)
    assert ("other.weight" if change == "extra" else "swiglu.up.weight") in message
