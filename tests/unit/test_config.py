"""Settings: flags beat the environment beats the file; every mistake is one sentence that names it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protocol.errors import ConfigInvalid
from protocol.units import MAX_QU
from qubixd.config import Config, load, markdown_table

NEEDED = ["--chain", "node://127.0.0.1:1", "--contract-index", "28"]


def environ(tmp_path: Path, **settings: str) -> dict[str, str]:
    """An environment in which nothing of this machine's user is found."""
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "data"), **settings}


def settings_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "qubix.toml"
    path.write_text(text)
    return str(path)


def test_flags_beat_environment_beats_file(tmp_path: Path) -> None:
    file = settings_file(tmp_path, 'name = "file"\nregion = "file"\nrunner = "docker"\ninterval = 9\n')
    config = load(
        [*NEEDED, "--config", file, "--name", "flag"],
        environ(tmp_path, QUBIX_NAME="env", QUBIX_REGION="env", QUBIX_INTERVAL="7"),
    )
    assert (config.name, config.region, config.runner) == ("flag", "env", "docker")
    assert config.interval == 7


@pytest.mark.parametrize("text,value", [("0", False), ("No", False), ("true", True), ("ON", True)])
def test_an_environment_can_switch_off_what_the_file_switches_on(
    tmp_path: Path, text: str, value: bool
) -> None:
    file = settings_file(tmp_path, f"provider = {str(not value).lower()}\n")
    settings = environ(tmp_path, QUBIX_PROVIDER=text, QUBIX_CONFIG=file)
    assert load(NEEDED, settings).provider is value


def test_every_setting_can_come_from_anywhere(tmp_path: Path) -> None:
    from_flags = load([*NEEDED, "--bootstrap", "/a", "--bootstrap", "/b", "--price", "5"], environ(tmp_path))
    from_environment = load(
        [],
        environ(
            tmp_path,
            QUBIX_CHAIN="node://127.0.0.1:1",
            QUBIX_CONTRACT_INDEX="28",
            QUBIX_BOOTSTRAP="/a /b",
            QUBIX_PRICE="5",
        ),
    )
    text = 'chain = "node://127.0.0.1:1"\ncontract_index = 28\nbootstrap = ["/a", "/b"]\nprice = 5\n'
    from_file = load(["--config", settings_file(tmp_path, text)], environ(tmp_path))
    assert from_flags == from_environment == from_file
    assert from_flags.bootstrap == ("/a", "/b")


def test_the_default_file_is_the_one_in_the_xdg_folder(tmp_path: Path) -> None:
    (tmp_path / "config" / "qubix").mkdir(parents=True)
    (tmp_path / "config" / "qubix" / "config.toml").write_text('name = "from there"\n')
    assert load(NEEDED, environ(tmp_path)).name == "from there"


def test_defaults(tmp_path: Path) -> None:
    config = load(NEEDED, environ(tmp_path))
    assert config.data_dir == str(tmp_path / "data" / "qubix")
    assert config.control_socket == tmp_path / "data" / "qubix" / "control.sock"
    assert (config.listen_host, config.listen_port) == ("127.0.0.1", 0)
    assert config == Config(data_dir=config.data_dir, chain="node://127.0.0.1:1", contract_index=28)


def test_an_address_of_the_newer_internet(tmp_path: Path) -> None:
    config = load([*NEEDED, "--listen", "[::1]:4001"], environ(tmp_path))
    assert (config.listen_host, config.listen_port) == ("[::1]", 4001)


WRONG_FLAGS = {
    "no port": (["--listen", "127.0.0.1"], "listen must be HOST:PORT, not '127.0.0.1'"),
    "no host": (["--listen", ":1"], "listen must be HOST:PORT"),
    "a strange port": (["--listen", "127.0.0.1:²"], "listen must be HOST:PORT"),
    "too high a port": (["--listen", "127.0.0.1:65536"], "listen must be HOST:PORT"),
    "runner": (["--runner", "podman"], "runner must be one of auto, docker, process, not 'podman'"),
    "no chain": (["--chain", ""], "no chain is set.*--chain.*qubix demo"),
    "no contract": (["--contract-index", "0"], "no escrow contract is set.*--contract-index"),
    "no such contract": (["--contract-index", "4294967296"], "contract_index must be between 1 and"),
    "interval": (["--interval", "0"], "interval must be between 1 and 60"),
    "long interval": (["--interval", "61"], "interval must be between 1 and 60"),
    "unpaid intervals": (["--unpaid-intervals", "101"], "unpaid_intervals must be between 1 and 100"),
    "negative price": (["--price", "-1"], f"price must be between 0 and {MAX_QU}"),
    "immense price": (["--price", str(MAX_QU + 1)], f"price must be between 0 and {MAX_QU}"),
    "long name": (["--name", "n" * 65], "name must have at most 64 characters"),
    "long region": (["--region", "n" * 65], "region must have at most 64 characters"),
    "long network": (["--network", "n" * 65], "network must have at most 64 characters"),
    "no file": (["--config", "/nowhere/q.toml"], "/nowhere/q.toml cannot be read: No such file"),
}


@pytest.mark.parametrize("flags,sentence", WRONG_FLAGS.values(), ids=WRONG_FLAGS)
def test_a_wrong_flag_is_one_sentence(tmp_path: Path, flags: list[str], sentence: str) -> None:
    with pytest.raises(ConfigInvalid) as wrong:
        load([*NEEDED, *flags], environ(tmp_path))
    assert re.search(sentence, str(wrong.value)) and "\n" not in str(wrong.value)


WRONG_FILES = {
    "not TOML": (b"name = ", "qubix.toml is not TOML"),
    "not text": (b"name = '\xff'", "qubix.toml is not TOML"),
    "unknown": (b"nmae = 'x'", "has a setting that does not exist: nmae"),
    "wrong type": (b"interval = 'five'", r"interval"),
    "a list that is none": (b"bootstrap = 'one'", r"bootstrap"),
    "a truth for a number": (b"price = true", r"price"),
}


@pytest.mark.parametrize("content,sentence", WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "qubix.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=sentence):
        load([*NEEDED, "--config", str(path)], environ(tmp_path))


@pytest.mark.parametrize(
    "name,text,sentence",
    [
        ("QUBIX_PRICE", "cheap", "QUBIX_PRICE must be a whole number, not 'cheap'"),
        ("QUBIX_INTERVAL", "1.5", "QUBIX_INTERVAL must be a whole number"),
        ("QUBIX_PROVIDER", "maybe", "QUBIX_PROVIDER must be one of .*, not 'maybe'"),
        ("QUBIX_INTERVAL", "0", "interval must be between"),
    ],
)
def test_a_wrong_variable_is_one_sentence(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    with pytest.raises(ConfigInvalid, match=sentence):
        load(NEEDED, environ(tmp_path, **{name: text}))


def test_a_credit_is_one_qu_unless_said_otherwise(tmp_path: Path) -> None:
    assert load(NEEDED, environ(tmp_path)).qu_per_credit == 1
    assert load([*NEEDED, "--qu-per-credit", "250000"], environ(tmp_path)).qu_per_credit == 250_000
    with pytest.raises(ConfigInvalid, match="qu_per_credit must be between"):
        load([*NEEDED, "--qu-per-credit", "0"], environ(tmp_path))


def test_the_page_for_providers_has_every_setting() -> None:
    page = (Path(__file__).parents[2] / "docs" / "provider.md").read_text()
    assert markdown_table() in page


def test_several_places_to_listen_at_can_come_from_anywhere(tmp_path: Path) -> None:
    both = ("0.0.0.0:4001", "[::]:443")
    flags = [word for place in both for word in ("--listen", place)]
    listing = settings_file(tmp_path, f"listen = {list(both)}\n")
    for config in (
        load([*NEEDED, *flags], environ(tmp_path)),
        load(NEEDED, environ(tmp_path, QUBIX_LISTEN=" ".join(both))),
        load([*NEEDED, "--config", listing], environ(tmp_path)),
    ):
        assert config.listen == both and not config.on_loopback
        assert (config.listen_host, config.listen_port) == ("0.0.0.0", 4001)
        assert config.also_listen == (("[::]", 443),)
    one = load(
        [*NEEDED, "--config", settings_file(tmp_path, 'listen = "127.0.0.1:4001"\n')], environ(tmp_path)
    )
    assert one.listen == ("127.0.0.1:4001",) and one.also_listen == () and one.on_loopback
    mixed = load([*NEEDED, "--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0"], environ(tmp_path))
    assert not mixed.on_loopback
    with pytest.raises(ConfigInvalid, match="listen must be HOST:PORT, not '4001'"):
        load([*NEEDED, "--listen", "127.0.0.1:0", "--listen", "4001"], environ(tmp_path))
