"""TensorFlow Serving's configuration, and the operations that the pinned release knows."""

import re
import sys

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from medclip_keras.serving import operations
from medclip_keras.serving.operations import CONFIGURATION, SERVER_RELEASE, operations_of, server_operations

FIELD = descriptor_pb2.FieldDescriptorProto
# The messages of the configuration files, as in the release's .proto files: name → field → type.
MESSAGES = {
    "Int64": {"value": "int64"},
    "Bool": {"value": "bool"},
    "Latest": {"num_versions": "uint32"},
    "Policy": {"latest": "Latest"},
    "Label": {"key": "string", "value": "int64"},
    "Config": {
        "name": "string", "base_path": "string", "model_platform": "string", "model_version_policy": "Policy",
        "version_labels": "[Label]",
    },
    "ConfigList": {"config": "[Config]"},
    "models": {"model_config_list": "ConfigList"},
    "batching": {
        "max_batch_size": "Int64", "batch_timeout_micros": "Int64", "max_enqueued_batches": "Int64",
        "num_batch_threads": "Int64", "enable_large_batch_splitting": "Bool",
        "max_execution_batch_size": "Int64", "pad_variable_length_inputs": "bool",
    },
    "Prometheus": {"enable": "bool", "path": "string"},
    "monitoring": {"prometheus_config": "Prometheus"},
}  # fmt: skip


def read(name):
    """A configuration file as its message."""
    file = descriptor_pb2.FileDescriptorProto(name="server.proto", package="server", syntax="proto3")
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            label = FIELD.LABEL_REPEATED if kind.startswith("[") else FIELD.LABEL_OPTIONAL
            added = described.field.add(name=field, number=number, label=label)
            if (kind := kind.strip("[]")) in MESSAGES:
                added.type, added.type_name = FIELD.TYPE_MESSAGE, f".server.{kind}"
            else:
                added.type = getattr(FIELD, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"server.{name}"))()
    return text_format.Parse((CONFIGURATION / f"{name}.config").read_text(), message)


def test_both_models_are_served_with_a_label():
    models = {one.name: one for one in read("models").model_config_list.config}
    assert {name: one.base_path for name, one in models.items()} == {
        "medclip": "/models",
        "medclip_tokens": "/models/tokens_only",
    }
    for one in models.values():
        assert [(label.key, label.value) for label in one.version_labels] == [("stable", 1)]
        assert one.model_version_policy.latest.num_versions == 2


def test_batches_are_split_and_never_padded():
    batching = read("batching")
    assert batching.max_batch_size.value % batching.max_execution_batch_size.value == 0
    assert batching.enable_large_batch_splitting.value
    assert not batching.pad_variable_length_inputs
    assert read("monitoring").prometheus_config.enable


def test_the_servers_of_the_compose_file_are_pinned_and_use_every_file():
    compose = yaml.safe_load((CONFIGURATION / "compose.yaml").read_text())
    images = {name: service["image"] for name, service in compose["services"].items()}
    assert images == {
        "cpu": f"tensorflow/serving:{SERVER_RELEASE}",
        "gpu": f"tensorflow/serving:{SERVER_RELEASE}-gpu",
    }
    for service in compose["services"].values():
        named = set(re.findall(r"/config/(\S+)", " ".join(service["command"])))
        assert named == {path.name for path in CONFIGURATION.glob("*.config")}
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


@pytest.fixture(scope="module")
def needed(saved_model, tokens_only):
    return {"medclip": operations_of(saved_model), "medclip_tokens": operations_of(tokens_only)}


def test_the_pinned_server_knows_every_operation(needed):
    known = server_operations()
    assert len(known) > 1500
    assert {name: of_one - known for name, of_one in needed.items()} == {
        "medclip": set(),
        "medclip_tokens": set(),
    }


def test_only_the_model_with_texts_needs_tensorflow_text(needed):
    of_text = {"FastBertNormalize", "FastWordpieceTokenizeWithOffsets"}
    assert of_text <= needed["medclip"]
    assert not [name for name in needed["medclip_tokens"] if name.startswith(("TFText>", "Fast"))]


def test_the_table_of_operations_is_up_to_date(needed):
    assert (CONFIGURATION / "operations.csv").read_text() == operations.table(needed)


def test_an_unknown_operation_is_named(saved_model, monkeypatch, capsys):
    known = server_operations()
    monkeypatch.setattr(operations, "server_operations", lambda: known - {"EnsureShape"})
    monkeypatch.setattr(sys, "argv", ["operations", str(saved_model)])
    assert operations.main() == 1
    assert "TensorFlow Serving 2.20.0 does not know EnsureShape." in capsys.readouterr().out
