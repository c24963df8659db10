"""The DaemonSet that is exported, as Kubernetes reads it."""

import copy
import json
import zipfile

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from edgebit.fleet.export import export_kubernetes
from edgebit.fleet.oci_image import ENTRYPOINT, USER

SCHEMAS = "kubernetes-validate==1.37.0"  # with the schemas of Kubernetes 1.25 to 1.37 inside
MODEL_BYTES = 8 << 20


@pytest.fixture
def documents(tmp_path, write_bundle):
    """Writes the manifest for a broker; gives its documents by kind."""
    files = {"model.ebm": MODEL_BYTES, "edgebitd.pyz": "daemon", "lib/libedgebit.so": "engine"}
    bundle = write_bundle("chat", "aarch64-linux-gnu", files)

    def write(mqtt):
        (path,) = export_kubernetes(bundle, tmp_path / "out", image="registry.local/edgebit:7", mqtt=mqtt)
        assert "@" not in path.read_text().replace("edgebit@", ""), "every name is filled in"
        return {document["kind"]: document for document in yaml.safe_load_all(path.read_text())}, bundle

    return write


def test_the_daemon_set_says_what_the_bundle_needs(documents):
    """CPU, memory, image, the node's name, and no right that it does not need."""
    made, bundle = documents("mqtt://broker.local")

    template = made["DaemonSet"]["spec"]["template"]
    assert made["DaemonSet"]["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert template["metadata"]["annotations"] == {"edgebit/bundle": bundle.id}
    assert template["spec"]["nodeSelector"]["kubernetes.io/arch"] == "arm64"
    (container,) = template["spec"]["containers"]
    assert container["image"] == "registry.local/edgebit:7"
    assert container["args"] == ["--device-name", "$(NODE)"] and container["env"][0]["name"] == "NODE"
    assert int(container["resources"]["requests"]["memory"].removesuffix("Mi")) > MODEL_BYTES >> 20
    assert template["spec"]["securityContext"]["runAsUser"] == USER
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    config = made["ConfigMap"]["data"]["edgebitd.toml"]
    assert config == '[mqtt]\nurl = "mqtt://broker.local:1883"\n'


def test_mounts_and_probe_are_where_the_image_looks(documents):
    """Settings, state, and the program of the image's entry point."""
    made, _ = documents("mqtt://broker.local")

    (container,) = made["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert ENTRYPOINT[ENTRYPOINT.index("--config") + 1] == f"{mounts['config']}/edgebitd.toml"
    assert ENTRYPOINT[ENTRYPOINT.index("--state") + 1] == mounts["state"]
    probe = container["readinessProbe"]["exec"]["command"][-1]
    assert ENTRYPOINT[1] in probe and f"{mounts['config']}/edgebitd.toml" in probe
    volumes = {volume["name"] for volume in made["DaemonSet"]["spec"]["template"]["spec"]["volumes"]}
    assert volumes == set(mounts)


def test_a_broker_with_a_user_takes_its_password_from_the_secret(documents):
    """The file that the Secret's key becomes, beside the settings."""
    made, _ = documents("mqtts://edgebit@broker.local")

    config = made["ConfigMap"]["data"]["edgebitd.toml"]
    assert 'user = "edgebit"\npassword_file = "mqtt.password"' in config
    sources = made["DaemonSet"]["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"]
    assert sources[1] == {"secret": {"name": "edgebit-mqtt", "optional": True}}


@pytest.mark.slow
def test_it_holds_to_every_schema_of_kubernetes(documents, pypi_wheel):
    """Of all versions that the package has, in their strict form, where an unknown key is a fault."""
    made, _ = documents("mqtts://edgebit@broker.local")
    with zipfile.ZipFile(pypi_wheel(SCHEMAS)) as wheel:
        folder = "kubernetes_validate/kubernetes-json-schema"
        versions = {name.split("/")[2] for name in wheel.namelist() if name.startswith(f"{folder}/v")}
        strict = sorted(version for version in versions if version.endswith("-strict"))
        assert len(strict) >= 10
        for version in strict:
            definitions = json.loads(wheel.read(f"{folder}/{version}/_definitions.json"))
            registry = Registry().with_resource(
                "https://kubernetes.io/api/_definitions.json", DRAFT202012.create_resource(definitions)
            )
            for kind, name in (("DaemonSet", "daemonset-apps-v1"), ("ConfigMap", "configmap-v1")):
                schema = json.loads(wheel.read(f"{folder}/{version}/{name}.json"))
                validator = Draft202012Validator(schema, registry=registry)
                assert [error.message for error in validator.iter_errors(made[kind])] == [], version
                if kind == "DaemonSet":  # the check itself: an unknown key, deep inside
                    spoiled = copy.deepcopy(made[kind])
                    spoiled["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
                    assert list(validator.iter_errors(spoiled)), version
