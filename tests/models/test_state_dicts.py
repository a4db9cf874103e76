"""Files of weights: complete ones are read, others are refused by name, and no code in them is run."""

import collections
import json
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from medclip_keras.models.state_dicts import files_of, find_weights, read_state_dict


def write(folder, tensors, name="model.safetensors"):
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / name)
    return folder / name


@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_truncated_safetensors_file_is_refused_with_its_name(kept, tmp_path):
    file = write(tmp_path / "weights", {"layer1.0.conv1.weight": np.ones((40, 30), "float32")})
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"a complete safetensors file\. Received: 'model\.safetensors of"):
        read_state_dict(file)


def test_a_git_lfs_pointer_is_named(tmp_path):
    file = tmp_path / "pytorch_model.bin"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin, a Git LFS pointer of 63 bytes"):
        read_state_dict(file)


def torch_file(path, value):
    """A file of torch.save's layout, by hand; tests/benchmarks/pretrained.py reads those of the real one."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value))
        archive.writestr("archive/version", "3\n")
    return path


def test_a_refusal_by_torch_is_told_without_its_advice_to_run_the_pickle(tmp_path, monkeypatch):
    def load(path, **_):
        raise pickle.UnpicklingError("Weights only load failed. Re-running `torch.load` will likely succeed.")

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    refused = r"weights_only=True\)\. Received: 'w\.bin of \d+ bytes \(Weights only load failed\)'\. Fetch it"
    with pytest.raises(ValueError, match=refused) as error:
        read_state_dict(torch_file(tmp_path / "w.bin", {}))
    assert "Re-running" not in str(error.value)


def test_a_torch_file_needs_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"'w\.bin'\. pip install 'medclip_keras\[torch\]'"):
        read_state_dict(torch_file(tmp_path / "w.bin", {}))


class Tensor:
    """Of the torch below: as much of a tensor as reading one takes."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def is_floating_point(self):
        return self.array.dtype.kind == "f"

    def float(self):
        return Tensor(self.array.astype("float32"))

    def numpy(self):
        return self.array


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_torch_reads_weights_only_and_nothing_but_tensors(wrapper, tmp_path, monkeypatch):
    asked, half, number = [], Tensor(np.ones(2, "float16")), Tensor(np.arange(2))
    content = {"epoch": 3, "optimizer": {}, wrapper: {"module.a": half, "module.n": number}}

    def load(path, **options):
        asked.append(options)
        return content

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load, Tensor=Tensor))
    file = torch_file(tmp_path / "w.bin", {})
    tensors = read_state_dict(file)
    assert asked == [{"map_location": "cpu", "weights_only": True}]
    assert {name: array.dtype for name, array in tensors.items()} == {"a": np.float32, "n": np.int64}
    content[wrapper] = {"a": Tensor(np.ones(2)), "epoch": 3}
    with pytest.raises(ValueError, match=r"w\.bin, where 'epoch' is a int"):
        read_state_dict(file)


def legacy_file(path, value, storages, *, kept=None):
    """A file of torch.save's format before 1.6, by hand; tests/benchmarks/pretrained.py reads real ones."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, given):
            is_storage = isinstance(given, tuple) and given[:1] == ("storage",)
            return (*given, "cpu", len(storages[given[2]]), None) if is_storage else None

    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(part, file, 2)
        Pickler(file, 2).dump(value)
        pickle.dump(list(storages), file, 2)
        for numbers in storages.values():
            file.write(np.int64(len(numbers)).tobytes() + numbers.tobytes())
    content = path.read_bytes()
    path.write_bytes(content[: kept and int(kept * len(content))])
    return path


@pytest.fixture
def old_torch(monkeypatch):
    """Names that a pickle of torch holds; reading it must not call them."""

    def called(*_):
        raise AssertionError("called")

    utils, module = types.ModuleType("torch._utils"), types.ModuleType("torch")
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_other"):
        function = types.FunctionType(called.__code__, called.__globals__, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    for name in ("FloatStorage", "LongStorage"):
        setattr(module, name, type(name, (), {"__module__": "torch"}))
    module._utils = utils
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return module


class Saved:
    """Pickled as a tensor of old torch: a view of a storage."""

    def __init__(self, torch, key, offset, shape, strides, kind="FloatStorage", rebuild="_rebuild_tensor_v2"):
        storage = ("storage", getattr(torch, kind), key)
        self.reduced = (
            getattr(torch._utils, rebuild),
            (storage, offset, shape, strides, False, collections.OrderedDict()),
        )

    def __reduce__(self):
        return self.reduced


def test_the_format_before_pytorch_1_6_needs_no_torch(old_torch, tmp_path):
    storages = {"7": np.arange(8, dtype="<f4"), "9": np.array([3], "<i8")}
    value = collections.OrderedDict(
        transposed=Saved(old_torch, "7", 1, (3, 2), (1, 3)),
        count=Saved(old_torch, "9", 0, (), (), "LongStorage"),
    )
    tensors = read_state_dict(legacy_file(tmp_path / "w.pth", {"epoch": 3, "state_dict": value}, storages))
    np.testing.assert_array_equal(tensors["transposed"], [[1, 4], [2, 5], [3, 6]])
    assert tensors["transposed"].dtype == np.float32
    assert (tensors["count"].shape, tensors["count"].dtype, int(tensors["count"])) == ((), np.int64, 3)


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "rebuild", "kept", "sentence"),
    [
        (
            0,
            (2, 4),
            (4, 1),
            "_rebuild_other",
            None,
            r"_utils\._rebuild_other, which no state dict needs",
        ),
        (1, (2, 4), (4, 1), "_rebuild_tensor_v2", None, r"\(a tensor outside its storage\)"),
        (4, (4,), (-1,), "_rebuild_tensor_v2", None, r"\(a tensor outside its storage\)"),
        (0, (2**50,), (0,), "_rebuild_tensor_v2", None, r"\(a tensor outside its storage\)"),
        (0, (8,), (1,), "_rebuild_tensor_v2", 0.99, r"w\.pth of \d+ bytes"),
        (0, (8,), (1,), "_rebuild_tensor_v2", 0.5, r"w\.pth of \d+ bytes"),
    ],
)
def test_old_files_of_anything_but_whole_tensors_are_refused(
    offset, shape, strides, rebuild, kept, sentence, old_torch, tmp_path
):
    value = {"a": Saved(old_torch, "7", offset, shape, strides, rebuild=rebuild)}
    file = legacy_file(tmp_path / "w.pth", value, {"7": np.arange(8, dtype="<f4")}, kept=kept)
    with pytest.raises(ValueError, match=rf"a complete torch file of tensors alone .*{sentence}"):
        read_state_dict(file)


def test_bfloat16_becomes_float32(tmp_path):
    import ml_dtypes

    safetensors.numpy.save_file({"a": np.array([1.5, -2], ml_dtypes.bfloat16)}, tmp_path / "a.safetensors")
    array = read_state_dict(tmp_path / "a.safetensors")["a"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [1.5, -2])


def test_weights_are_found_in_folders(tmp_path):
    with pytest.raises(ValueError, match="`weights` must be an existing file or folder"):
        find_weights(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"a folder with one file of weights .* Received: \[\]"):
        find_weights(tmp_path)
    (tmp_path / "resnet.pth").write_bytes(b"")
    assert find_weights(tmp_path).name == "resnet.pth"
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert find_weights(tmp_path).name == "pytorch_model.bin"
    (tmp_path / "pytorch_model.bin").unlink()
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert find_weights(tmp_path).name == "model.safetensors.index.json"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefix_of_all_names_is_removed(prefix, tmp_path):
    names = {"fc.bias", "logit_scale"}
    file = write(tmp_path / "weights", {prefix + name: np.ones(2, "float32") for name in names})
    assert read_state_dict(file).keys() == names
    file = write(tmp_path / "weights", {f"{prefix}fc.bias": np.ones(2), "logit_scale": np.ones(2)})
    assert read_state_dict(file).keys() == {f"{prefix}fc.bias", "logit_scale"}


@pytest.fixture
def shards(tmp_path):
    """Six tensors in two files, with their index."""
    tensors = {f"layer{n}.weight": np.full((2, 3), n, "float32") for n in range(6)}
    files = {name: f"model-0000{1 + n % 2}-of-00002.safetensors" for n, name in enumerate(tensors)}
    for file in set(files.values()):
        write(tmp_path / "weights", {name: tensors[name] for name in files if files[name] == file}, file)
    index = tmp_path / "weights" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 144}, "weight_map": files}))
    return index


def test_shards_are_read_by_their_index(shards):
    assert find_weights(shards.parent) == shards
    assert [file.name for file in files_of(shards)] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    read = read_state_dict(shards)
    assert {name: array[1, 2] for name, array in read.items()} == {f"layer{n}.weight": n for n in range(6)}


def test_shards_that_their_index_does_not_describe_are_refused(shards):
    files = json.loads(shards.read_text())["weight_map"]
    one, two = files["layer0.weight"], files["layer1.weight"]
    changes = {
        "1 missing or not listed: extra": {**files, "extra": one},
        "1 missing or not listed: layer3.weight": {k: v for k, v in files.items() if k != "layer3.weight"},
        r"no \.\./model\.bin beside it": {**files, "layer0.weight": "../model.bin"},
        "an index with a weight_map": [],
    }
    for sentence, weight_map in changes.items():
        shards.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(ValueError, match=rf"^`weights` must be .*{sentence}"):
            read_state_dict(shards)
    shards.write_text(json.dumps({"weight_map": files}))
    (shards.parent / two).write_bytes((shards.parent / two).read_bytes()[:-5])
    with pytest.raises(ValueError, match=rf"a complete safetensors file\. Received: '{two} of"):
        read_state_dict(shards)
    (shards.parent / two).unlink()
    with pytest.raises(ValueError, match=rf"all the files that .* 'no {two} beside it'"):
        read_state_dict(shards)
