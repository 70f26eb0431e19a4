"""Pictures as tensors: exact numbers, any file, whole files."""

import io
import os
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from course_lib import images
from course_lib.errors import CourseError
from course_lib.images import (
    COLORBLIND_SAFE,
    figure_style,
    from_uint8,
    has_cjk_font,
    image_grid_figure,
    make_grid,
    prepare_image,
    require_image_size,
    save_figure,
    save_image,
    text_or_fallback,
    to_pil,
    to_uint8,
)

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def colour(picture: torch.Tensor, row: int, column: int) -> tuple[int, ...]:
    return tuple(to_uint8(picture[:, row, column]).tolist())


def close(first: tuple[int, ...], second: tuple[int, ...], within: int = 3) -> bool:
    return all(abs(a - b) <= within for a, b in zip(first, second, strict=True))


# ---- numbers <-> bytes


def test_bytes_make_the_round_trip_exactly():
    levels = torch.arange(256, dtype=torch.uint8)
    values = from_uint8(levels)
    assert values.dtype == torch.float32
    assert values[0] == -1 and values[255] == 1
    assert torch.equal(to_uint8(values), levels)
    assert torch.equal(to_uint8(values.to(torch.float64)), levels)
    assert torch.equal(from_uint8(levels.numpy()), values)


def test_values_outside_the_range_are_clamped():
    assert to_uint8(torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0, float("inf")])).tolist() == [0, 0, 128, 255, 255, 255]


def test_what_is_no_number_is_told():
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(torch.tensor([0.0, float("nan")]))


def test_only_bytes_are_taken_for_bytes():
    with pytest.raises(ValueError, match="float32.*pass uint8"):
        from_uint8(torch.zeros(3))


def test_a_tensor_becomes_a_picture_with_channels_last():
    tensor = -torch.ones(3, 2, 5)
    tensor[0, 1, 4] = 1  # red, second row, last column
    picture = to_pil(tensor.requires_grad_())
    assert picture.size == (5, 2) and picture.mode == "RGB"
    assert picture.getpixel((4, 1)) == RED and picture.getpixel((0, 0)) == BLACK


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 3, 4, 4), (4, 4)])
def test_other_shapes_are_no_picture(shape):
    with pytest.raises(ValueError, match="pass one picture"):
        to_pil(torch.zeros(shape))


# ---- any picture -> a square tensor


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_powers_of_two_are_sizes(size):
    assert require_image_size(size) == size


@pytest.mark.parametrize("size", [48, 8, 512, 0, -32, 32.0, "32", True, None])
def test_other_sizes_are_refused_with_a_remedy(size):
    with pytest.raises(CourseError, match=f"image_size={size!r} is not a power of two.*use 16, 32, 64, 128 or 256"):
        require_image_size(size)


def test_a_picture_of_the_right_size_is_not_changed(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = from_uint8(pixels).permute(2, 0, 1)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), pixels, Image.fromarray(pixels)):
        for fit in ("crop", "pad"):
            prepared = prepare_image(source, 32, fit)
            assert prepared.dtype == torch.float32 and prepared.is_contiguous()
            assert torch.equal(prepared, expected)


def test_crop_keeps_the_middle_and_pad_keeps_everything():
    wide = np.zeros((32, 96, 3), dtype=np.uint8)
    wide[:, 32:64] = RED
    cropped = prepare_image(wide, 32, "crop")
    assert {colour(cropped, row, column) for row in (0, 31) for column in (0, 31)} == {RED}
    padded = prepare_image(wide, 32, "pad")
    assert colour(padded, 0, 16) == WHITE and colour(padded, 31, 16) == WHITE
    assert close(colour(padded, 16, 16), RED) and close(colour(padded, 16, 2), BLACK)
    with pytest.raises(CourseError, match='fit="stretch" is unknown; use "crop" or "pad"'):
        prepare_image(wide, 32, "stretch")


def test_making_smaller_averages_instead_of_picking():
    stripes = np.zeros((256, 256), dtype=np.uint8)
    stripes[:, ::2] = 255  # black and white in turn: grey from afar; a picked column would be one or the other
    assert prepare_image(stripes, 16).abs().max() < 0.1


def test_transparency_is_laid_on_white():
    pixels = np.zeros((16, 16, 4), dtype=np.uint8)
    pixels[:, :8] = (255, 0, 0, 255)
    pixels[:, 8:12] = (0, 0, 0, 128)
    prepared = prepare_image(pixels, 16)
    assert colour(prepared, 0, 0) == RED and colour(prepared, 0, 15) == WHITE
    assert close(colour(prepared, 0, 9), (127, 127, 127))


def test_transparency_of_a_palette_is_laid_on_white(tmp_path):
    picture = Image.new("P", (16, 16), 1)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.paste(0, (8, 0, 16, 16))
    picture.save(tmp_path / "a.png", transparency=0)
    prepared = prepare_image(tmp_path / "a.png", 16)
    assert colour(prepared, 0, 0) == RED and colour(prepared, 0, 15) == WHITE


def test_the_camera_note_turns_the_picture_upright(tmp_path):
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[:32] = 255  # white above black
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter clockwise
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, exif=exif)
    prepared = prepare_image(tmp_path / "a.jpg", 16)
    assert close(colour(prepared, 8, 14), WHITE, 8) and close(colour(prepared, 8, 1), BLACK, 8)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "LA", "PA"])
def test_every_mode_keeps_white_and_black(mode):
    half = Image.new("RGB", (16, 16), "white")
    half.paste("black", (8, 0, 16, 16))
    source = half.convert("RGBA").convert(mode) if mode in ("RGBa", "LA", "PA") else half.convert(mode)
    prepared = prepare_image(source, 16)
    assert close(colour(prepared, 5, 0), WHITE) and close(colour(prepared, 5, 15), BLACK)


def test_grey_with_multiplied_opacity():
    half = Image.new("LA", (16, 16), (255, 255))
    half.paste((0, 255), (8, 0, 16, 16))
    prepared = prepare_image(half.convert("La"), 16)
    assert close(colour(prepared, 5, 0), WHITE) and close(colour(prepared, 5, 15), BLACK)


@pytest.mark.skipif(int(Image.__version__.split(".")[0]) < 12, reason="older Pillow cannot convert LAB")
def test_lab_colours():
    red = Image.new("RGB", (16, 16), RED)
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert close(colour(prepare_image(lab, 16), 5, 5), RED, 12)


@pytest.mark.parametrize(
    ("dtype", "white"),
    [
        (np.uint16, 65535),
        (np.int32, 65535),
        (np.int32, 255),
        (np.float32, 1.0),
        (np.float32, 255.0),
        (np.float32, 1e5),
    ],
)
def test_grey_of_more_than_8_bits_is_scaled_not_cut(dtype, white):
    ramp = np.linspace(0, white, 16).astype(dtype).repeat(16).reshape(16, 16).T
    prepared = prepare_image(Image.fromarray(np.ascontiguousarray(ramp)), 16)
    assert torch.allclose(prepared[0, 0], torch.linspace(-1, 1, 16), atol=0.01)


def test_dark_16_bit_pictures_stay_dark(tmp_path):
    Image.fromarray(np.full((16, 16), 200, dtype=np.uint16)).save(tmp_path / "a.png")
    assert prepare_image(tmp_path / "a.png", 16).max() < -0.98


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    mode=st.sampled_from(["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "LA", "I;16"]),
    size=st.sampled_from([16, 32]),
    fit=st.sampled_from(["crop", "pad"]),
)
@settings(max_examples=60, deadline=None)
def test_any_size_and_mode_becomes_a_square(width, height, mode, size, fit):
    prepared = prepare_image(Image.new(mode, (width, height)), size, fit)
    assert prepared.shape == (3, size, size)
    assert prepared.min() >= -1 and prepared.max() <= 1


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_thread_of_pixels_is_a_picture(size, fit):
    assert prepare_image(Image.new("RGB", size), 16, fit).shape == (3, 16, 16)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 3), dtype=np.float32),
        np.zeros((3, 8, 8), dtype=np.uint8),
        np.zeros((8,), dtype=np.uint8),
        np.zeros((0, 8, 3), dtype=np.uint8),
        np.zeros((2, 8, 8, 3), dtype=np.uint8),
    ],
)
def test_other_arrays_are_refused_with_a_remedy(array):
    with pytest.raises(CourseError, match=r"pass uint8 \(height, width, 3\)"):
        prepare_image(array, 16)


# ---- files that are no use


def png_bytes(size: tuple[int, int] = (64, 64)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def refusal(path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CourseError) as caught:
            prepare_image(path, 32)
    assert str(path) in str(caught.value) and "use a whole PNG, JPEG" in str(caught.value)
    return str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.png")
    refusal(tmp_path)


def test_files_that_are_no_pictures(tmp_path):
    for name, data in {
        "empty.png": b"",
        "text.png": b"a red circle",
        "drawing.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n",
    }.items():
        (tmp_path / name).write_bytes(data)
        assert "no picture of a known format" in refusal(tmp_path / name)


def test_a_file_that_was_cut_off(tmp_path):
    whole = png_bytes()
    for kept in (len(whole) // 2, len(whole) - 30, 40):
        (tmp_path / "a.png").write_bytes(whole[:kept])
        refusal(tmp_path / "a.png")


@given(position=st.integers(8, 2000), byte=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, position, byte):
    damaged = bytearray(png_bytes((24, 24)))
    damaged[position % len(damaged)] = byte
    path = tmp_path_factory.mktemp("damaged") / "a.png"
    path.write_bytes(damaged)
    try:
        assert prepare_image(path, 16).shape == (3, 16, 16)
    except CourseError:
        pass


@pytest.mark.parametrize("size", [(8001, 8000), (12_000, 12_000), (60_000, 60_000)])
def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path, size, monkeypatch):
    path = tmp_path / "bomb.png"
    head = bytearray(png_bytes((1, 1)))
    head[16:24] = size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big")  # the PNG says so; it holds nothing of it
    head[29:33] = zlib.crc32(head[12:29]).to_bytes(4, "big")
    path.write_bytes(head)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    message = refusal(path)
    assert "pixels" in message and "at most 64,000,000" in message


def test_a_huge_picture_in_memory_is_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(CourseError, match="11 x 10 pixels are too many"):
        prepare_image(np.zeros((10, 11, 3), dtype=np.uint8), 16)


def test_reading_leaves_no_file_open(tmp_path):
    Image.new("RGB", (20, 20)).save(
        tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (20, 20), "red")]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        assert prepare_image(tmp_path / "a.gif", 16).max() == -1  # the first frame
    os.remove(tmp_path / "a.gif")


# ---- grids


@pytest.mark.parametrize(
    ("count", "columns", "padding", "background"), [(6, 3, 2, 1.0), (5, 2, 0, 0.0), (2, 8, 3, -1.0)]
)
def test_grids_equal_torchvision(count, columns, padding, background):
    from torchvision.utils import make_grid as original  # after the cure in conftest.py

    pictures = torch.rand(count, 3, 4, 6) * 2 - 1
    ours = make_grid(pictures, columns, padding, background)
    assert torch.equal(ours, original(pictures, nrow=columns, padding=padding, pad_value=background))


def test_a_grid_of_one_has_a_margin():
    grid = make_grid(torch.zeros(1, 3, 4, 4), columns=4, padding=1)
    assert grid.shape == (3, 6, 6) and grid[0, 0, 0] == 1 and grid[0, 1, 1] == 0


@pytest.mark.parametrize(
    ("shape", "columns", "padding"),
    [((3, 4, 4), 1, 1), ((0, 3, 4, 4), 1, 1), ((2, 3, 4, 4), 0, 1), ((2, 3, 4, 4), 1, -1)],
)
def test_grids_of_anything_else_are_refused(shape, columns, padding):
    with pytest.raises(ValueError, match="pass|use"):
        make_grid(torch.zeros(shape), columns, padding)


# ---- saving


def test_a_saved_picture_is_the_picture_and_says_what_it_is(tmp_path):
    picture = from_uint8(torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8))
    notes = {"Description": "a red circle", "prompt": "左上角的红色圆形", "cut": "half a character \ud83d"}
    save_image(picture, tmp_path / "deep" / "er" / "a.png", notes)
    assert torch.equal(prepare_image(tmp_path / "deep" / "er" / "a.png", 16), picture)
    with Image.open(tmp_path / "deep" / "er" / "a.png") as saved:
        assert saved.text == {**notes, "cut": "half a character ?"}
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["a.png"]


@pytest.mark.parametrize("failing", ["write_bytes", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, failing):
    path = tmp_path / "a.png"
    save_image(torch.zeros(3, 16, 16), path)
    before = path.read_bytes()

    def disk_is_full(*arguments):
        if failing == "write_bytes":
            with open(arguments[0], "wb") as file:
                file.write(arguments[1][:10])
        raise OSError(28, "No space left on device")

    owner = images.Path if failing == "write_bytes" else images.os
    monkeypatch.setattr(owner, failing, disk_is_full)
    with pytest.raises(CourseError, match="a.png.*No space left on device.*choose another folder"):
        save_image(torch.ones(3, 16, 16), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_places_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CourseError, match="cannot be written"):
        save_image(torch.zeros(3, 16, 16), tmp_path / "file" / "a.png")
    with pytest.raises(CourseError, match=r"does not end in \.png"):
        save_image(torch.zeros(3, 16, 16), tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="NaN"):
        save_image(torch.full((3, 16, 16), float("nan")), tmp_path / "a.png")
    assert os.listdir(tmp_path) == ["file"]


# ---- figures


def seen_without_red_cones(code: str) -> np.ndarray:
    """A colour as a reader without red cones sees it: (yellowness, blueness) in [0, 1].

    Source: Viénot, Brettel and Mollon 1999, "Digital video colourmaps for checking the legibility of displays by
    dichromats": red and green both become 0.112 red + 0.888 green, blue stays.
    """
    red, green, blue = ((int(code[place : place + 2], 16) / 255) ** 2.2 for place in (1, 3, 5))
    return np.array([0.112 * red + 0.888 * green, blue]) ** (1 / 2.2)


def look_alike(first: str, second: str) -> bool:
    return bool(np.abs(seen_without_red_cones(first) - seen_without_red_cones(second)).max() < 0.08)


def test_the_palette_is_safe_for_colour_blind_readers():
    assert look_alike("#8C564B", "#4F6B4B")  # a brown and a green: two colours that would not do
    assert not [(a, b) for a in COLORBLIND_SAFE for b in COLORBLIND_SAFE if a < b and look_alike(a, b)]


def test_the_style_ends_with_its_block():
    import matplotlib

    before = matplotlib.rcParams["axes.prop_cycle"]
    with figure_style():
        assert [entry["color"] for entry in matplotlib.rcParams["axes.prop_cycle"]] == list(COLORBLIND_SAFE)
    assert matplotlib.rcParams["axes.prop_cycle"] == before


@pytest.fixture(params=["with a Chinese font", "without"])
def fonts(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setattr(images, "_CJK_FONTS", ())
    for cached in (images._cjk_fonts, images._drawable):
        cached.cache_clear()
    yield has_cjk_font()
    for cached in (images._cjk_fonts, images._drawable):
        cached.cache_clear()


def test_figures_never_show_boxes_and_never_warn(fonts, tmp_path):
    titles = ["{no $5 in \\x$", "左上角的红色圆形", "tab\tand \U0001faa9", "", "a very long title " * 5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = image_grid_figure(torch.zeros(5, 3, 16, 16), titles, columns=3, title="圆形")
        save_figure(figure, tmp_path / "a.png")
    shown = [axis.get_title() for axis in figure.axes]
    assert len(shown) == 6  # two rows of three, the last place empty
    assert shown[0] == titles[0] and shown[2] == "(3)"
    assert shown[1] == (titles[1] if fonts else "(2)")


def test_without_a_chinese_font_chinese_is_replaced(monkeypatch, fonts):
    assert text_or_fallback("a red circle", "?") == "a red circle"
    assert text_or_fallback("圆", "?") == ("圆" if fonts else "?")


def test_a_figure_carries_its_alt_text_into_the_file(tmp_path):
    figure = image_grid_figure(torch.zeros(2, 3, 16, 16), ["a circle", "圆形"], title="Two drawings")
    assert figure.alt_text == "Two drawings: a circle; 圆形"
    save_figure(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.text["Description"] == figure.alt_text
    assert image_grid_figure(torch.zeros(1, 3, 16, 16), alt="nothing yet").alt_text == "nothing yet"


def test_the_figure_shows_the_pictures_unsmoothed():
    picture = from_uint8(torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8))
    (axis,) = image_grid_figure(picture).axes
    (shown,) = axis.get_images()
    assert np.array_equal(shown.get_array(), to_uint8(picture[0]).permute(1, 2, 0).numpy())
    assert shown.get_interpolation() == "nearest"


def test_figures_do_not_pile_up():
    from matplotlib import pyplot

    image_grid_figure(torch.zeros(2, 3, 16, 16))
    assert pyplot.get_fignums() == []


def test_every_picture_needs_its_title():
    with pytest.raises(ValueError, match="1 titles for 2 pictures"):
        image_grid_figure(torch.zeros(2, 3, 16, 16), ["one"])
