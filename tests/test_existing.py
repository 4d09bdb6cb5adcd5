"""`divlens diversity` and `divlens.diversity`: pictures that exist already, in any shape that they come in."""

import importlib
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import divlens
from divlens.diversity import FeatureSums
from divlens.errors import DivlensError
from divlens.pictures import PictureError
from oracles import tiny_features
from oracles.colour_network import colour_network
from oracles.runs_in_folders import refused

PROMPTS = ("a cat", "red heart", "snow")
N = 4


@pytest.fixture(autouse=True)
def on_colours(monkeypatch):
    """LPIPS on the colours alone, for speed."""
    network = colour_network()
    monkeypatch.setattr(importlib.import_module("divlens.existing"), "network_of", lambda name, device: network)


@pytest.fixture(scope="module")
def pictures():
    """Grey levels that 8 bits hold: what is saved is read back."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(256, (3, N, 3, 12, 16), generator=generator).float() / 255
    levels[1, 1:] = levels[1, :1]  # one picture over and over
    return levels


@pytest.fixture
def folder(pictures, tmp_path):
    for prompt, of_prompt in zip(PROMPTS, pictures, strict=True):
        (tmp_path / "pictures" / prompt).mkdir(parents=True)
        for number, picture in enumerate(of_prompt):
            image_of(picture).save(tmp_path / "pictures" / prompt / f"{number}.png")
    return tmp_path / "pictures"


def image_of(picture):
    return Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())


def table_in(folder: Path) -> pd.DataFrame:
    files = sorted(folder.glob("*/*.png"))
    return pd.DataFrame(
        {"path": [str(file.relative_to(folder)) for file in files], "prompt": [f.parent.name for f in files]}
    )


def test_every_shape_gives_the_same(pictures, folder):
    table = table_in(folder)
    table.to_csv(folder.parent / "list.csv", index=False)
    table["path"] = [str(folder / path) for path in table["path"]]
    (folder.parent / "elsewhere").mkdir()
    table.to_parquet(folder.parent / "elsewhere" / "list.parquet")
    shutil.copytree(folder, folder.parent / "beside", dirs_exist_ok=True)
    relative = pd.read_csv(folder.parent / "list.csv")
    relative.assign(path="pictures/" + relative["path"]).to_csv(folder.parent / "list.csv", index=False)
    prompts = [prompt for prompt in PROMPTS for _ in range(N)]
    shapes: list[Any] = [
        (folder,),
        (str(folder),),
        (folder.parent / "list.csv",),
        (folder.parent / "elsewhere" / "list.parquet",),
        (table["path"].tolist(), prompts),
        (pictures, PROMPTS),
        (pictures.flatten(0, 1), prompts),
    ]
    network = colour_network()
    expected = [FeatureSums.of(network(part)).mean_pairwise_distance() for part in pictures]
    assert expected[1] == 0 < min(expected[0], expected[2])
    for shape in shapes:
        found: Any = divlens.diversity(*shape)
        assert tuple(found.per_prompt["prompt"]) == PROMPTS and found.per_prompt["n"].tolist() == [N] * 3
        np.testing.assert_allclose(found.per_prompt["diversity"], expected, rtol=1e-6)  # float32 features
        assert found.table["value"][0] == pytest.approx(np.mean(expected), rel=1e-6)
        assert found.table["value_low"][0] < found.table["value"][0] < found.table["value_high"][0]
    other: Any = divlens.diversity(pictures, PROMPTS[::-1])
    assert tuple(other.per_prompt["prompt"]) == PROMPTS[::-1]
    alone: Any = divlens.diversity(pictures.flatten(0, 1))
    assert len(alone.per_prompt) == 1 and "No intervals" in str(alone)


def test_it_is_the_lpips_diversity_of_a_probe(monkeypatch, pictures):
    monkeypatch.undo()
    large = torch.nn.functional.interpolate(pictures.flatten(0, 1), scale_factor=2).view(3, N, 3, 24, 32)
    found: Any = divlens.diversity(large, PROMPTS)
    np.testing.assert_allclose(found.per_prompt["diversity"], divlens.lpips_diversity(large), rtol=1e-5, atol=1e-9)


def test_measures_by_name_and_of_ones_own(pictures, folder, tmp_path):
    clip = tiny_features.clip(tmp_path / "clip")
    bright = divlens.Measure("brightness", lambda look: look.pictures.mean((1, 2, 3)), limits=(0, 1))
    names = ["diversity", "vendi", "repeat:0.0001", f"clipscore:{clip}", f"clipiqa:{clip}", bright]
    names.append(f"prdc_precision:{folder / PROMPTS[0]}@clip:{clip}")
    for number in range(2):  # of the reference, more than five
        image_of(1 - pictures[0, number]).save(folder / PROMPTS[0] / f"more{number}.png")
    found: Any = divlens.diversity(pictures, PROMPTS, names)
    assert list(found.per_prompt.columns[2:]) == [name if isinstance(name, str) else name.name for name in names]
    by_prompt = found.per_prompt.set_index("prompt")
    np.testing.assert_allclose(by_prompt["brightness"], pictures.mean((1, 2, 3, 4)), rtol=1e-5)
    assert by_prompt["repeat:0.0001"].tolist() == pytest.approx([N + 1, 2, N + 1])
    assert by_prompt["vendi"].tolist()[1] == pytest.approx(1, rel=1e-6) and by_prompt["vendi"].tolist()[0] > 1.1
    from divlens.metrics.clip import clip_of

    scores = clip_of(clip).scores((pictures[2] * 255).round().byte(), "snow")
    assert by_prompt[f"clipscore:{clip}"]["snow"] == pytest.approx(float(scores.mean()), rel=1e-4)
    text = " ".join(str(found).split())
    assert "uniform noise has" in text and "compare at equal n only" in text and "12 x 16 pixels" in text


def test_the_command_prints_and_writes_it(run, folder):
    code, out, err = run("diversity", folder, "--measures", "rke,vendi:2", "--out", "tables", "--quiet")
    assert (code, err) == (0, "") and "LPIPS diversity" in out and out.endswith("written: tables\n")
    assert all(len(line) <= 80 for line in out.splitlines())
    table, per_prompt = (pd.read_csv(f"tables/{name}.csv") for name in ("table", "per_prompt"))
    assert table["figure"].tolist() == ["diversity", "rke", "vendi:2"] and tuple(per_prompt["prompt"]) == PROMPTS
    assert set(pd.read_parquet("tables/per_prompt.parquet")) == set(per_prompt)
    assert run("diversity", folder, "--measures", "rke,vendi:2", "--out", "tables")[0] == 0  # the same once more
    refused(run("diversity", folder, "--measures", "rke", "--out", "tables"), "holds those of `divlens diversity`")
    image_of(torch.zeros(3, 12, 16)).save(folder / "snow" / "0.png")
    answer = run("diversity", folder, "--measures", "rke,vendi:2", "--out", "tables")
    refused(answer, "with other content")  # other pictures under the same names


def test_broken_pictures_are_counted_named_and_skipped_on_request(run, folder):
    whole = (folder / "snow" / "2.png").read_bytes()
    (folder / "snow" / "2.png").write_bytes(whole[: len(whole) // 2])
    (folder / "a cat" / "1.png").write_bytes(b"no picture")
    answer = run("diversity", folder)
    refused(answer, "2 of 12 pictures cannot be read, --skip-broken leaves them out", "snow/2.png", "a cat/1.png")
    code, out, _ = run("diversity", folder, "--skip-broken")
    text = " ".join(out.split())
    assert code == 0 and "2 pictures left out, unreadable:" in text, text
    assert "3 to 4 pictures each" in text, text
    assert "unequal numbers" in text
    table = table_in(folder)
    table.loc[len(table)] = ["snow/gone.png", "snow"]
    table.to_csv(folder / "list.csv", index=False)
    refused(run("diversity", folder / "list.csv"), "3 of 13 pictures", "gone.png: expected a picture, got no such file")


def test_a_prompt_with_one_picture_has_no_diversity(pictures):
    prompts = ["a cat"] * N + ["snow"]
    found: Any = divlens.diversity(torch.cat([pictures[0], pictures[2, :1]]), prompts)
    assert not math.isnan(found.per_prompt["diversity"][0]) and math.isnan(found.per_prompt["diversity"][1])
    assert "LPIPS diversity: over 1 of 2 prompts, too few for an interval." in found.notes


def change(folder: Path, kind: str) -> Path:
    """A bad input of this kind, made of a good one."""
    table = table_in(folder)
    if kind == "one picture a prompt":
        for prompt in PROMPTS:
            for number in range(1, N):
                (folder / prompt / f"{number}.png").unlink()
    elif kind == "an empty folder":
        shutil.rmtree(folder)
        folder.mkdir()
    elif kind == "an empty sub-folder":
        (folder / "nothing").mkdir()
    elif kind == "pictures beside sub-folders":
        shutil.copy(folder / "snow" / "0.png", folder)
    elif kind == "two sizes":
        Image.new("RGB", (16, 16)).save(folder / "snow" / "3.png")
    elif kind == "other columns":
        table.rename(columns={"path": "file"}).to_csv(folder / "list.csv", index=False)
    elif kind == "no rows":
        table[:0].to_csv(folder / "list.csv", index=False)
    elif kind == "an empty prompt":
        table.assign(prompt=[" ", *table["prompt"][1:]]).to_csv(folder / "list.csv", index=False)
    elif kind == "a prompt that is a number":
        table.assign(prompt=range(len(table))).to_parquet(folder / "list.parquet")
    elif kind == "a picture twice":
        pd.concat([table, table[:1]]).to_csv(folder / "list.csv", index=False)
    elif kind == "no table":
        (folder / "list.parquet").write_bytes(b"PAR1 and nothing else")
    elif kind == "nothing there":
        return folder / "none"
    elif kind == "a file":
        return folder / "snow" / "0.png"
    return next((folder / name for name in ("list.csv", "list.parquet") if (folder / name).exists()), folder)


BAD = {
    "one picture a prompt": "expected at least 2 pictures of a prompt, for diversity is between them, got 3 of 3 in",
    "an empty folder": "expected pictures (.bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp) in ",
    "an empty sub-folder": "in the sub-folders nothing of ",
    "pictures beside sub-folders": "or in its sub-folders, got 1 picture beside 3 sub-folders",
    "two sizes": "expected pictures of one size, for LPIPS depends on it, got 12 x 16 pixels in ",
    "other columns": "expects the columns path and prompt, lacks path, and has file, prompt",
    "no rows": "expects a picture in each row, got no rows",
    "an empty prompt": "a prompt of groups is empty",
    "a prompt that is a number": "a prompt of groups expects a text, got 0",
    "a picture twice": "expects a picture of a prompt once, got ",
    "no table": "list.parquet cannot be read as a table: ",
    "nothing there": "expected a folder of pictures, got ",
    "a file": "which is a file",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_in_a_line(kind, run, folder):
    assert run("diversity", folder)[0] == 0  # the control
    refused(run("diversity", change(folder, kind), "--out", "tables"), BAD[kind])
    assert not Path("tables").exists()


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        ("token_entropy", "expected a measure of pictures, got token_entropy, which reads tokens"),
        ("repeat", "which reads tokens; repeat:0.01 takes pictures at most so far apart for repeats"),
        ("fidelity", "got fidelity, which asks the judge of a model"),
        ("law_distance", "got law_distance, which asks the judge of a model"),
        ("kept_diversity", "got kept_diversity, which asks the judge of a model"),
        ("sharpness", "no measure is called 'sharpness'"),
        ("clip:nowhere/none", "cannot load 'nowhere/none'"),
    ],
)
def test_measures_that_pictures_alone_do_not_allow(measure, said, run, folder):
    refused(run("diversity", folder, "--measures", measure), said)


def test_bad_arguments(pictures, folder):
    flat: Any = pictures.flatten(0, 1)
    wrong: list[tuple[tuple[Any, ...], str]] = [
        ((flat * 255, PROMPTS), r"expected images as a float32 tensor \(n, 3, H, W\) in \[0, 1\], got .* 255"),
        ((pictures[..., 0], PROMPTS), r"expected images as a float32 tensor \(n, 3, H, W\)"),
        ((pictures, PROMPTS[:2]), "groups expects 3 different prompts, got 2"),
        ((pictures, ["a", "a", "b"]), "groups expects 3 different prompts, got 3: a, a, b"),
        ((flat, ["a"]), "groups expects the prompt of each of 12 pictures, got 1"),
        ((flat, "a"), "groups expects the prompt of each of 12 pictures, got 'a'"),
        ((folder, ["a"]), "groups is for tensors and lists of files"),
        ((flat.numpy(),), "images expects a folder, a table, a list of files or a float32 tensor, got ndarray"),
        (([1, 2],), "images expects a folder"),
        ((pictures, PROMPTS, [3]), "measures expects a list of names and divlens.Measure, got 3"),
    ]
    for arguments, said in wrong:
        with pytest.raises((DivlensError, PictureError), match=said):
            divlens.diversity(*arguments)


def test_pictures_too_small_for_a_network(monkeypatch, run, folder):
    monkeypatch.undo()
    monkeypatch.chdir(folder.parent)
    refused(run("diversity", folder), "expected pictures of pictures of at least 21 x 21 pixels")
