"""Picture files of every kind become what a viewer shows, in [0, 1]."""

import numpy as np
import pytest
import torch
from PIL import Image

from divlens.errors import DivlensError
from divlens.picture_files.reading import checked_files, files_by_folder, read_picture

COLOURS = np.random.default_rng(0).integers(256, size=(6, 5, 3), dtype=np.uint8)


def written(tmp_path, name, image, **options):
    image.save(tmp_path / name, **options)
    return read_picture(tmp_path / name)


def as_pictures(levels):
    return torch.from_numpy(levels.astype(np.float32) / 255).permute(2, 0, 1)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.PNG"])
def test_without_loss(name, tmp_path):
    found = written(tmp_path, name, Image.fromarray(COLOURS))
    assert found.dtype == torch.float32 and torch.equal(found, as_pictures(COLOURS))


def test_grey_has_three_equal_colours_in_8_and_in_16_bits(tmp_path):
    grey = COLOURS[..., 0]
    expected = as_pictures(np.repeat(grey[..., None], 3, 2))
    assert torch.equal(written(tmp_path, "a.png", Image.fromarray(grey)), expected)
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    torch.testing.assert_close(written(tmp_path, "b.png", wide), expected, rtol=0, atol=1e-7)  # rounding of float32
    between = Image.fromarray(grey.astype(np.uint16) * 257 // 2)
    assert float((written(tmp_path, "c.png", between) - expected).abs().max()) > 0.1  # the control


def test_what_is_transparent_lies_on_white(tmp_path):
    alpha = np.full((6, 5, 1), 255, np.uint8)
    alpha[0], alpha[1] = 0, 51  # 51 is a fifth
    found = written(tmp_path, "a.png", Image.fromarray(np.concatenate([COLOURS, alpha], 2)))
    whole = as_pictures(COLOURS)
    assert torch.equal(found[:, 2:], whole[:, 2:]) and bool((found[:, 0] == 1).all())
    torch.testing.assert_close(found[:, 1], 0.8 + 0.2 * whole[:, 1], rtol=0, atol=1 / 255)
    palette = Image.fromarray(COLOURS).quantize(8)
    clear = palette.getpixel((2, 3))
    assert bool((written(tmp_path, "b.gif", palette, transparency=clear)[:, 3, 2] == 1).all())


def test_a_camera_says_how_it_was_held(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6  # a quarter turn to the right shows it upright
    found = written(tmp_path, "a.png", Image.fromarray(COLOURS), exif=tags)
    assert torch.equal(found, as_pictures(np.rot90(COLOURS, -1).copy()))


def test_of_an_animation_the_first_picture(tmp_path):
    other = Image.fromarray(255 - COLOURS)
    found = written(tmp_path, "a.png", Image.fromarray(COLOURS), save_all=True, append_images=[other])
    assert torch.equal(found, as_pictures(COLOURS))


def test_what_cannot_be_read_is_named_in_a_line(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    Image.fromarray(COLOURS[..., 0].astype(np.float32)).save(tmp_path / "b.tif")
    (tmp_path / "c.png").mkdir()
    for name in ("a.png", "b.tif", "c.png", "none.png"):
        with pytest.raises(DivlensError, match=name) as caught:
            read_picture(tmp_path / name)
        assert "\n" not in str(caught.value) and "expected" in str(caught.value)
    with pytest.raises(DivlensError, match="floating point numbers, whose range is not known"):
        read_picture(tmp_path / "b.tif")


def test_many_broken_ones_are_counted_and_the_first_named(tmp_path):
    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(b"?")
    files = sorted(tmp_path.iterdir())
    with pytest.raises(DivlensError, match=r"^9 of 9 pictures cannot be read, .*4\.png[^;]*; \.\.\.$"):
        checked_files(files, skip_broken=False)
    found, broken = checked_files(files, skip_broken=True)
    assert found == [None] * 9 and len(broken) == 9


def test_hidden_files_and_others_do_not_count(tmp_path):
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / ".cache").mkdir()
    assert [path.name for path in files_by_folder(tmp_path)[tmp_path.name]] == ["a.JPG", "b.png"]
