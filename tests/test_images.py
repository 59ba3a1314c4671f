"""Image and label files of every mode and format, whole and damaged."""

import io
import struct
import zlib

import numpy as np
import pytest
from conftest import refused
from PIL import Image

from glamlib.data.images import read_image, read_label
from glamlib.errors import InputError

NOISE = np.random.default_rng(0).integers(0, 4, (24, 36), dtype=np.uint8)


def grey(dtype, *values):
    return Image.fromarray(np.array([values], dtype))


@pytest.mark.parametrize(
    ("suffix", "pixels", "values"),
    [
        ("png", Image.new("1", (2, 1), 1), [255, 255]),
        ("png", grey("u1", 0, 40), [0, 40]),
        ("png", Image.new("LA", (2, 1), (40, 9)), [40, 40]),
        ("png", Image.new("RGBA", (2, 1), (7, 7, 7, 4)), [7, 7]),
        ("png", Image.new("RGB", (2, 1), (1, 1, 1)).quantize(2), [1, 1]),
        ("png", grey("u2", 200, 40 * 256 + 5), [0, 40]),
        ("tif", grey("u2", 200, 256), [0, 1]),  # nearly black: 16 bits are 16 bits
        ("tif", grey("u2", 0, 0), [0, 0]),
        ("tif", grey(">u2", 200, 40 * 256 + 5), [0, 40]),
        ("tif", grey("i4", 0, 255), [0, 255]),
        ("tif", grey("f4", 0.5, 1), [128, 255]),
        ("tif", grey("f4", 0.6, 254.7), [1, 255]),
        ("jpg", Image.new("CMYK", (2, 1)), [255, 255]),  # no ink is white
        ("tif", Image.new("CMYK", (2, 1), (0, 0, 0, 155)), [100, 100]),
        ("tif", Image.new("YCbCr", (2, 1), (90, 128, 128)), [90, 90]),
        ("webp", Image.new("RGBA", (2, 1), (9, 9, 9, 255)), [9, 9]),
        ("gif", Image.new("L", (2, 1), 9), [9, 9]),
    ],
)  # fmt: skip
def test_every_mode_becomes_rgb(tmp_path, suffix, pixels, values):
    path = tmp_path / f"a.{suffix}"
    pixels.save(path, **({"lossless": True} if suffix == "webp" else {}))
    image = read_image(path)
    assert image.shape == (3, 1, 2)
    assert image.tolist() == [[values]] * 3


def test_signed_16_bits_are_16_bits(tmp_path):
    grey("u2", 200, 40 * 256 + 5).save(tmp_path / "a.tif", tiffinfo={339: 2})  # PIL opens it as one of 32
    assert read_image(tmp_path / "a.tif")[0].tolist() == [[0, 40]]


@pytest.mark.parametrize(
    ("pixels", "needle"),
    [
        (grey("i4", -1, 5), "values from -1 to 5; allowed: 0..255, 0..65535 in 16 bits, or real numbers 0..1"),
        (grey("i4", 0, 5080), "values from 0 to 5080"),  # beside others up to 255 the scale would differ by file
        (grey("f4", 0, 256.5), "values from 0.0 to 256.5"),
        (grey("f4", np.nan, 1), "values from nan"),
        (grey("f4", 0, np.inf), "to inf"),
        (grey("u2", 0, 255), "16 bits, and values only up to 255; save it with 8 bits"),  # it would be black
    ],
)
def test_modes_of_unknown_meaning_are_refused_by_name(tmp_path, pixels, needle):
    pixels.save(tmp_path / "a.tif")
    with refused(str(tmp_path / "a.tif"), needle):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_files_of_several_frames_are_refused_but_a_phones_photo_is_read(tmp_path, suffix):
    frames = [Image.new("L", (2, 1), value) for value in (9, 200)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=rf"a\.{suffix}: .*2 frames; allowed: one image in a file"):
        read_image(tmp_path / f"a.{suffix}")
    frames[0].save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "phone.jpg").unique().tolist() == [9]


def test_images_and_labels_are_turned_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored picture lies on its left side
    upright = np.arange(6, dtype=np.uint8).reshape(3, 2)
    for suffix in ("png", "webp", "tif"):
        Image.fromarray(np.rot90(upright)).save(tmp_path / f"a.{suffix}", exif=exif, lossless=True)
        assert read_image(tmp_path / f"a.{suffix}")[0].tolist() == upright.tolist()
    assert read_label(tmp_path / "a.png").tolist() == upright.tolist()


def test_labels_are_indices_not_colours(tmp_path):
    label = Image.fromarray(NOISE)
    label.putpalette([9, 9, 9] * 256)  # every colour the same: only the index tells values apart
    for suffix in ("png", "tif", "bmp"):
        label.save(tmp_path / f"a.{suffix}")
        assert read_label(tmp_path / f"a.{suffix}").tolist() == NOISE.tolist()
    Image.fromarray(NOISE > 1).save(tmp_path / "bits.png")
    assert read_label(tmp_path / "bits.png").tolist() == (NOISE > 1).astype(int).tolist()
    for mode in ("RGB", "LA", "I;16"):  # colours mean something where classes.json says so
        Image.new(mode, (3, 2)).save(tmp_path / "bad.png")
        with pytest.raises(InputError, match=rf"bad\.png: .*mode is {mode}; allowed: palettised"):
            read_label(tmp_path / "bad.png")
    Image.new("L", (8, 8)).save(tmp_path / "bad.png", "JPEG")
    with pytest.raises(InputError, match=r"bad\.png: .*it is a JPEG"):
        read_label(tmp_path / "bad.png")


def encoded(mode, **options):
    content = io.BytesIO()
    Image.fromarray(NOISE * 60).convert(mode).save(content, **options)
    return content.getvalue()


def reads_not(read, path, content):
    path.write_bytes(content)
    with refused(f"{path}: cannot be read as an image ("):
        read(path)


def test_a_flipped_bit_in_a_png_is_always_caught(tmp_path):
    content = encoded("P", format="PNG")
    for place in np.random.default_rng(0).choice(8 * len(content), 600, replace=False):
        spoiled = bytearray(content)
        spoiled[place // 8] ^= 1 << place % 8
        if place // 8 < len(content) - 12:  # behind are the length and the checksum of the empty last chunk
            reads_not(read_label, tmp_path / "a.png", bytes(spoiled))
    (tmp_path / "a.png").write_bytes(content + b"what a tool appends behind the end is ignored")
    assert read_label(tmp_path / "a.png").shape == NOISE.shape


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "options",
    [
        {"format": "PNG"},
        {"format": "JPEG"},
        {"format": "JPEG", "progressive": True},
        {"format": "TIFF"},
        {"format": "TIFF", "compression": "tiff_lzw"},
        {"format": "BMP"},
        {"format": "WEBP"},
        {"format": "GIF"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path, capfd, options):
    content = encoded("L", **options)
    end = len(content) - {"GIF": 2, "TIFF": 4, "PNG": 4}.get(options["format"], 0)  # these last bytes hold nothing
    file = tmp_path / "a.img"
    for length in [*range(0, end, 7), end - 1]:
        file.write_bytes(content[:length])
        with pytest.raises(InputError, match="cannot be read as an image"):
            read_image(file)
    capfd.readouterr()  # libtiff says more than it needs


def test_files_that_are_no_image_or_not_there_are_refused(tmp_path):
    reads_not(read_image, tmp_path / "a.png", b"no image")
    with pytest.raises(InputError, match=r"b\.png: cannot be read"):
        read_image(tmp_path / "b.png")


def tiff_bytes(bits: int, sample_format: int, photometric: int, pixels: bytes) -> bytes:
    """Return a little-endian TIFF of 8 x 8 values, of a kind that PIL reads and does not write."""
    tags = {256: 8, 257: 8, 258: bits, 259: 1, 262: photometric, 273: 122, 277: 1, 279: len(pixels), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, tags[tag]) for tag in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + pixels


@pytest.mark.parametrize(("bits", "kind", "photometric"), [(12, 1, 1), (8, 2, 1), (16, 1, 0), (32, 3, 0)])
def test_values_that_pil_misunderstands_are_refused(tmp_path, bits, kind, photometric):
    (tmp_path / "odd.tif").write_bytes(tiff_bytes(bits, kind, photometric, bytes(8 * bits)))
    with pytest.raises(InputError, match=r"odd\.tif: .*a TIFF of 12 bits, of signed bytes, or of more"):
        read_image(tmp_path / "odd.tif")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_labels_of_few_bits_are_not_stretched(tmp_path, bits):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    values = np.arange(8) % 2**bits
    row = np.packbits((values[:, None] >> np.arange(bits)[::-1]) & 1).tobytes()
    header = struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")
    (tmp_path / "label.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert read_label(tmp_path / "label.png").tolist() == [values.tolist()]
