"""cluster.yaml against AWS as moto plays it in this process: no packet is sent, and no node is ever set up."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import moto
import pytest
import ray
import yaml
from ray.autoscaler._private import commands, providers, util
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME, TAG_RAY_NODE_STATUS, TAG_RAY_USER_NODE_TYPE

from doppel_ray.cluster.growth import autoscaler_nodes
from doppel_ray.cluster.plan import Node
from doppel_ray.config.experiment import Experiment
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow  # seconds for each test

FILE = REPOSITORY / "cluster.yaml"
TRIAL = Experiment()
TOKEN = "token-of-this-test-0123456789abcdef"


@dataclass(frozen=True)
class Cloud:
    """What AWS has after `ray up` and the autoscaler have asked for one node of each kind."""

    config: dict[str, Any]
    """The file as Ray has checked and completed it."""
    instances: dict[str, dict[str, Any]]
    """By kind of node."""
    user_data: dict[str, object]
    groups: list[dict[str, Any]]
    """The security groups of the nodes."""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    home = tmp_path_factory.mktemp("home")
    for name, content in {".ray/auth_token": TOKEN, ".ssh/config": ""}.items():
        (home / name).parent.mkdir()
        (home / name).write_text(content)
    settings: Any = {"iam": {"load_aws_managed_policies": True}}  # which Ray gives to the head
    with pytest.MonkeyPatch.context() as patch, moto.mock_aws(config=settings):
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(variable, "none")
        patch.setenv("HOME", str(home))
        patch.chdir(REPOSITORY)
        # Makes the role, the key and the security group too.
        config = commands._bootstrap_config(yaml.safe_load(FILE.read_text()), no_config_cache=True)
        for kind in config["available_node_types"]:
            launch(config, kind)
        ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
        found = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
        instances = {next(t["Value"] for t in i["Tags"] if t["Key"] == TAG_RAY_USER_NODE_TYPE): i for i in found}
        user_data = {
            kind: ec2.describe_instance_attribute(InstanceId=i["InstanceId"], Attribute="userData").get("UserData")
            for kind, i in instances.items()
        }
        named = {group["GroupId"] for instance in found for group in instance["SecurityGroups"]}
        groups = ec2.describe_security_groups(GroupIds=list(named))["SecurityGroups"]
        yield Cloud(config, instances, user_data, groups)


def launch(config: dict[str, Any], kind: str) -> None:
    """Have Ray's AWS provider start one node, as `ray up` does for the head and the autoscaler for workers."""
    provider = providers._get_node_provider(config["provider"], config["cluster_name"], use_cache=False)
    role = "head" if kind == config["head_node_type"] else "worker"
    tags = {
        TAG_RAY_NODE_KIND: role,
        TAG_RAY_USER_NODE_TYPE: kind,
        TAG_RAY_NODE_NAME: f"ray-{config['cluster_name']}-{role}",
        TAG_RAY_NODE_STATUS: "uninitialized",
    }
    provider.create_node(config["available_node_types"][kind]["node_config"], tags, 1)


def test_each_kind_of_node_is_the_machine_that_it_is_meant_to_be(cloud: Cloud) -> None:
    assert {kind: instance["InstanceType"] for kind, instance in cloud.instances.items()} == {
        "head": "m6i.xlarge",
        "cpu": "c7i.4xlarge",
        "gpu": "g6.2xlarge",
    }
    assert [kind for kind, made in cloud.instances.items() if made.get("InstanceLifecycle") == "spot"] == ["cpu"]
    types = cloud.config["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0, "trials stay off the small head"
    assert types["cpu"]["resources"]["CPU"] == 16
    assert (types["gpu"]["resources"]["CPU"], types["gpu"]["resources"]["GPU"]) == (8, 1)
    workers = [node for kind, node in types.items() if kind != "head"]
    assert [node["min_workers"] for node in workers] == [0, 0]
    assert cloud.config["max_workers"] == sum(node["max_workers"] for node in workers)
    for kind, instance in cloud.instances.items():
        asked = types[kind]["node_config"]
        assert [disk["Ebs"]["DeleteOnTermination"] for disk in asked["BlockDeviceMappings"]] == [True]
        assert len(instance["BlockDeviceMappings"]) == 1
        assert instance["MetadataOptions"]["HttpTokens"] == "required"


def test_the_world_reaches_ssh_and_nothing_else(cloud: Cloud) -> None:
    own = {group["GroupId"] for group in cloud.groups}
    for rule in (rule for group in cloud.groups for rule in group["IpPermissions"]):
        if rule["IpRanges"] or rule["Ipv6Ranges"] or rule["PrefixListIds"]:
            assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)
        assert {pair["GroupId"] for pair in rule["UserIdGroupPairs"]} <= own, "everything else: among the nodes alone"
    assert "--dashboard-host=127.0.0.1" in " ".join(cloud.config["head_start_ray_commands"])


def test_no_secret_is_in_what_aws_is_told_or_in_any_command(cloud: Cloud) -> None:
    assert not any(cloud.user_data.values())
    assert TOKEN not in json.dumps([cloud.instances, cloud.groups, cloud.config], default=str)
    assert cloud.config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token", "it travels over SSH, as a file"
    assert any("RAY_AUTH_MODE=token" in command for command in cloud.config["setup_commands"])


def test_a_cluster_of_a_head_alone_counts_as_what_it_may_grow_to(cloud: Cloud) -> None:
    head, worker = Node("head", 0.0, 0.0), Node("cpu", 16.0, 0.0)
    assert Counter(node.name for node in autoscaler_nodes(cloud.config, (head,), TRIAL)) == {"cpu": 16, "gpu": 4}
    assert Counter(node.name for node in autoscaler_nodes(cloud.config, (head, worker), TRIAL)) == {"cpu": 15, "gpu": 4}
    assert autoscaler_nodes({**cloud.config, "max_workers": 1}, (head, worker), TRIAL) == ()


def test_the_manifest_for_kubernetes_asks_for_this_ray_with_a_token() -> None:
    job = yaml.safe_load((REPOSITORY / "scripts" / "kuberay-rayjob.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"].split(".")[:2] == ray.__version__.split(".")[:2]
    assert cluster["authOptions"] == {"mode": "token"}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == 0
        assert group["template"]["spec"]["volumes"] == cluster["headGroupSpec"]["template"]["spec"]["volumes"]


def test_ray_finds_nothing_wrong_with_the_file_for_ones_own_machines() -> None:
    file = REPOSITORY / "scripts" / "cluster-onprem.yaml"
    util.validate_config(util.prepare_config(yaml.safe_load(file.read_text())))
