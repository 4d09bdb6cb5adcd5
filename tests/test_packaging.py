"""What the project promises as a package: one version, a light install, whole wheels and source distributions, layers,
offline tests."""

import email
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "divlens"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LARGEST_WHEEL = 45e6  # bytes: 40 MB of weights, the sprites and the code


def built(target, project, folder):
    """The distribution of a project, built without the network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, check=True, cwd=project, capture_output=True, text=True)
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder that the source distribution unpacks to."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built("sdist", ROOT, tmp_path_factory.mktemp("sdist"))) as archive:
        archive.extractall(folder, filter="data")
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(unpacked, tmp_path_factory):
    """The wheel that an installer makes of the source distribution: what is missing there is missing here."""
    return built("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def described(wheel):
    """The metadata of the wheel, the long description as its payload."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_string(archive.read(name).decode())


class Addresses(HTMLParser):
    """Collects what the links and pictures of a page point to."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("href", "src")]


def relative_addresses(markdown):
    """What relative links and pictures of a text point to."""
    page = Addresses()
    page.feed(MarkdownIt().render(markdown))
    return [address for address in page.found if not urlsplit(address).scheme]


def files_that_travel(folder, root):
    """Every file of a folder that is meant to travel, relative to `root`."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(root)) for p in files if p.suffix != ".pyc" and p.name != ".DS_Store"}


def required_names(requirements):
    return {re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower() for requirement in requirements}


def test_the_version_is_the_same_everywhere():
    import divlens

    version = PROJECT["version"]
    released = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == version
    assert divlens.__version__ == version
    assert metadata.version("divlens") == version


def test_the_wheel_holds_the_whole_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert files_that_travel(PACKAGE, ROOT / "src") <= names
    assert {"divlens/py.typed", "divlens/lab/assets/sprites.npy.xz"} <= names
    assert not [name for name in names if not name.startswith(("divlens/", "divlens-"))]


def test_the_wheel_carries_its_licence_and_attributions(wheel):
    names = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "dist-info/licenses" in name}
    assert names == {"LICENSE", "ATTRIBUTION.md"}


def test_the_wheel_is_small(wheel):
    assert wheel.stat().st_size < LARGEST_WHEEL


def test_the_metadata_name_the_authors_and_where_to_find_the_project(described):
    assert described["Author"] == "The divlens authors"
    addresses = dict(entry.split(", ") for entry in described.get_all("Project-URL"))
    assert addresses.keys() == {"Homepage", "Documentation", "Changelog", "Issues"}
    assert all(address.startswith("https://github.com/divlens/divlens") for address in addresses.values())


def test_the_long_description_is_the_readme_with_absolute_links_and_pictures(described):
    readme, description = (ROOT / "README.md").read_text(), described.get_payload()
    assert described["Description-Content-Type"] == "text/markdown"
    assert {"docs/samples.png", "docs/models.md"} <= set(relative_addresses(readme))  # the control
    assert not relative_addresses(description)
    assert "](https://github.com/divlens/divlens/raw/HEAD/docs/samples.png)" in description
    assert "](https://github.com/divlens/divlens/blob/HEAD/docs/models.md)" in description
    added = r"https://github.com/divlens/divlens/(raw|blob)/HEAD/"
    assert re.sub(added, "", description).strip() == readme.strip()


def test_the_source_distribution_holds_what_the_readme_links_to(unpacked):
    linked = relative_addresses((ROOT / "README.md").read_text())
    assert linked and not [address for address in linked if not (unpacked / urlsplit(address).path).exists()]
    assert not (unpacked / ".ci").exists()  # the control: not everything travels


@pytest.mark.parametrize("folder", ["benchmarks", "docs", "examples", "src", "studies", "tests"])
def test_the_source_distribution_holds_the_whole_folder(folder, unpacked):
    files = files_that_travel(ROOT / folder, ROOT)
    assert files and files <= files_that_travel(unpacked, unpacked)


def test_a_plain_install_is_light_and_pins_nothing():
    required = PROJECT["dependencies"]
    assert not [requirement for requirement in required if re.search(r"==|~=|<|!=", requirement)]
    heavy = {"diffusers", "transformers", "torchvision", "lpips", "resvg-py", "ipython", "torchsummary"}
    assert not heavy & required_names(required)
    tests = PROJECT["optional-dependencies"]["test"]
    assert heavy & required_names(tests) == {"ipython", "torchsummary"}  # the control; others come by extras


@pytest.mark.parametrize(
    ("module", "loads_torch"),
    [("divlens", False), ("divlens.cli", False), ("divlens.errors", False), ("divlens.types", True)],
)
def test_importing_divlens_loads_no_torch(module, loads_torch):
    code = f"import sys, {module}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.strip() == str(loads_torch)


def test_every_style_of_the_art_is_attributed():
    from divlens.zoo.art import NAMES, STYLES

    rows = [line for line in (ROOT / "ATTRIBUTION.md").read_text().splitlines() if line.startswith("|")]
    for source in (*STYLES.values(), NAMES):
        assert any(f"`{source.package}` {source.version}" in row and source.licence in row for row in rows), source


# Layers


def lint_imports(folder):
    """lint-imports over the package under folder/src, with the project's contracts."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    return subprocess.run([*command, *options], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def copied_package(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "src" / "divlens", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    return tmp_path


def test_imports_follow_the_layers(copied_package):
    result = lint_imports(copied_package)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("types.py", "from divlens import sampler"),
        ("noise.py", "def late():\n    import divlens.interventions"),
        ("models/zoo/adapter.py", "import divlens.zoo.training"),
        ("diversity/lpips.py", "from divlens.fidelity import judge"),
    ],
)
def test_an_import_against_the_layers_is_found(module, line, copied_package):
    path = copied_package / "src" / "divlens" / module
    path.write_text(f"{path.read_text()}\n{line}\n")
    result = lint_imports(copied_package)
    assert result.returncode == 1
    assert "BROKEN" in result.stdout


def test_a_module_without_a_layer_is_found(copied_package):
    (copied_package / "src" / "divlens" / "stray.py").touch()
    result = lint_imports(copied_package)
    assert result.returncode == 1
    assert "stray" in result.stdout


# The tests themselves


@pytest.mark.parametrize("call", ["connect", "connect_ex"])
def test_a_test_cannot_reach_the_network(call):
    with (
        socket.socket() as client,
        pytest.raises(RuntimeError, match=r"stay on this machine, it asked for '192\.0\.2\.1'"),
    ):
        getattr(client, call)(("192.0.2.1", 80))  # an address kept for documentation
    with pytest.raises(RuntimeError, match=r"it asked for 'example\.invalid'"):
        socket.create_connection(("example.invalid", 80))


def test_a_test_can_reach_its_own_machine():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        server.accept()[0].close()


def test_shapes_are_checked_while_the_tests_run():
    import torch
    from jaxtyping import TypeCheckError

    from divlens.loop import guide

    assert guide(torch.zeros(1, 2, 3), torch.ones(1, 2, 3), 2.0).shape == (1, 2, 3)
    with pytest.raises(TypeCheckError):
        guide(torch.zeros(1, 2, 3), torch.ones(1, 2, 4), 2.0)


def test_a_test_has_a_cache_of_its_own(tmp_path_factory):
    assert Path(os.environ["DIVLENS_CACHE"]).is_relative_to(tmp_path_factory.getbasetemp())
