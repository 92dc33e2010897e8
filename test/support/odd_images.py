"""Image files of every kind that people have, and damaged ones, from Pillow and by hand.

`odd_images.py make FOLDER` writes them. `odd_images.py read ZIP IMAGES MANIFEST` prints what the trainer decodes of each item of a
dataset: a JSON line with its path, size and the SHA-256 of its pixels.
"""

import hashlib
import io
import json
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from whetstone_trainer.data import read_split
from whetstone_trainer.images import Images
from whetstone_trainer.protocol import DatasetRef
from whetstone_trainer.stored_images import StoredImages

W, H = 61, 47
RNG = np.random.default_rng(5)
LEVELS = np.clip(
    np.add.outer(np.linspace(0, 200, H), np.linspace(0, 55, W))[..., None] + RNG.integers(0, 60, (H, W, 3)), 0, 255
).astype(np.uint8)
RGB = Image.fromarray(LEVELS)
ALPHA = Image.fromarray(RNG.integers(0, 256, (H, W)).astype(np.uint8))
RGBA = RGB.copy()
RGBA.putalpha(ALPHA)
GREY = RGB.convert("L")
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/></rdf:RDF></x:xmpmeta>'


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(value: int, order: str = "<", kind: int = 3, count: int = 1) -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHI", 0x0112, kind, count) + struct.pack(order + "HH", value, 0)
    return b"Exif\0\0" + head + struct.pack(order + "IH", 8, 1) + entry + struct.pack(order + "I", 0)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, bits: int, colour: int, extra: bytes = b"", behind: bytes = b"") -> bytes:
    """Rows of packed samples, most significant bit first."""
    height, width = values.shape[:2]
    rows = values.reshape(height, -1)
    if bits == 16:
        packed = [row.astype(">u2").tobytes() for row in rows]
    elif bits == 8:
        packed = [row.astype(np.uint8).tobytes() for row in rows]
    else:
        packed = [np.packbits(((row[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)).tobytes() for row in rows]
    pixels = zlib.compress(b"".join(b"\0" + row for row in packed))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", pixels) + behind + chunk(b"IEND", b"")


def bmp(bits: int, rows: list[bytes], *, palette: bytes = b"", masks: bytes = b"", compression: int = 0, top: bool = False) -> bytes:
    data = b"".join(row + b"\0" * (-len(row) % 4) for row in (rows if top else rows[::-1]))
    head = struct.pack("<IiiHHIIiiII", 40, W, -H if top else H, 1, bits, compression, len(data), 0, 0, 0, 0)
    offset = 14 + len(head) + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + head + masks + palette + data


def jpegs() -> Iterator[tuple[str, bytes]]:
    for quality in (30, 75, 95):
        for subsampling in (0, 1, 2):
            for progressive in (False, True):
                yield f"jpeg-{quality}-{subsampling}-{progressive}", saved(
                    RGB, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive
                )
    plain = saved(RGB, "JPEG")
    yield "jpeg-grey", saved(GREY, "JPEG")
    yield "jpeg-grey-progressive", saved(GREY, "JPEG", progressive=True)
    yield "jpeg-rgb", saved(RGB, "JPEG", keep_rgb=True)
    yield "jpeg-optimised", saved(RGB, "JPEG", optimize=True, restart_marker_rows=2, comment=b"a", dpi=(72, 72))
    yield "jpeg-icc", saved(RGB, "JPEG", icc_profile=b"\0" * 200)
    cmyk = saved(RGB.convert("CMYK"), "JPEG")
    yield "jpeg-cmyk", cmyk
    yield "jpeg-cmyk-turned", cmyk[:2] + segment(0xE1, exif(6)) + cmyk[2:]
    adobe = cmyk.index(b"Adobe")
    yield "jpeg-ycck", cmyk[: adobe + 11] + b"\x02" + cmyk[adobe + 12 :]
    for value in range(10):
        for order in "<>":
            yield f"jpeg-exif-{value}-{'II' if order == '<' else 'MM'}", plain[:2] + segment(0xE1, exif(value, order)) + plain[2:]
    for value in (2, 3, 6, 8):
        yield f"jpeg-xmp-{value}", saved(RGB, "JPEG", xmp=XMP.format(value).encode())
        yield f"jpeg-exif-long-{value}", plain[:2] + segment(0xE1, exif(value, kind=4)) + plain[2:]
        yield f"jpeg-exif-count-{value}", plain[:2] + segment(0xE1, exif(value, count=2)) + plain[2:]
        yield f"jpeg-exif-twice-{value}", plain[:2] + segment(0xE1, exif(value)) + segment(0xE1, exif(3)) + plain[2:]
        yield f"jpeg-exif-cut-{value}", plain[:2] + segment(0xE1, exif(value)[:-6]) + plain[2:]
        yield f"jpeg-exif-offset-{value}", plain[:2] + segment(0xE1, exif(value).replace(b"\x08\0\0\0", b"\xff\0\0\0", 1)) + plain[2:]
        yield f"jpeg-exif-byte-order-{value}", plain[:2] + segment(0xE1, exif(value).replace(b"II*", b"XX*")) + plain[2:]
        yield f"jpeg-exif-and-xmp-{value}", saved(RGB, "JPEG", exif=exif(value), xmp=XMP.format(5).encode())
    yield "jpeg-exif-empty", plain[:2] + segment(0xE1, b"Exif\0\0") + plain[2:]
    yield "jpeg-trailing", plain + b"more" * 50
    yield "jpeg-two-in-one", plain + plain
    yield "jpeg-mpo", saved(RGB, "MPO", save_all=True, append_images=[GREY.convert("RGB")])
    yield "jpeg-fill-bytes", plain[:2] + b"\xff\xff\xff" + plain[2:]
    yield "jpeg-no-end", plain[:-2]
    yield "jpeg-no-start", plain[2:]
    yield from damaged("jpeg", plain, 24)
    yield from damaged("jpeg-progressive", saved(RGB, "JPEG", progressive=True), 16)


def pngs() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "PA"):
        image = (RGBA if mode in ("LA", "RGBA", "PA") else RGB).convert("L" if mode == "I;16" else mode)
        if mode == "I;16":
            image = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 256 + 40)
        yield f"png-{mode.replace(';', '')}", saved(image.convert("RGBA") if mode == "PA" else image, "PNG")
    for bits in (1, 2, 4, 8, 16):
        grey = np.asarray(GREY).astype(np.uint16) * 257 >> (16 - bits)
        yield f"png-grey-{bits}", png(grey, bits, 0)
        yield f"png-grey-{bits}-transparent", png(grey, bits, 0, chunk(b"tRNS", struct.pack(">H", int(grey[3, 3]))))
        if bits <= 8:
            colours = RNG.integers(0, 256, 3 * 2**bits).astype(np.uint8).tobytes()
            yield f"png-palette-{bits}", png(grey, bits, 3, chunk(b"PLTE", colours))
            yield f"png-palette-{bits}-transparent", png(grey, bits, 3, chunk(b"PLTE", colours) + chunk(b"tRNS", b"\0\x80"))
            yield f"png-palette-{bits}-short", png(grey, bits, 3, chunk(b"PLTE", colours[:3]))
    wide = LEVELS.astype(np.uint16) * 256 + 77
    opaque = RNG.integers(0, 65536, (H, W, 1)).astype(np.uint16)
    yield "png-rgb-16", png(wide, 16, 2)
    yield "png-rgb-16-transparent", png(wide, 16, 2, chunk(b"tRNS", struct.pack(">HHH", *wide[2, 2])))
    yield "png-rgba-16", png(np.concatenate([wide, opaque], 2), 16, 6)
    yield "png-grey-alpha-16", png(np.concatenate([wide[..., :1], opaque], 2), 16, 4)
    yield "png-rgb-8-transparent", png(LEVELS, 8, 2, chunk(b"tRNS", struct.pack(">HHH", *LEVELS[2, 2])))
    yield "png-gamma", png(LEVELS, 8, 2, chunk(b"gAMA", struct.pack(">I", 20000)))
    yield "png-srgb", png(LEVELS, 8, 2, chunk(b"sRGB", b"\0"))
    yield "png-significant-bits", png(LEVELS, 8, 2, chunk(b"sBIT", b"\x05\x06\x05"))
    yield "png-background", png(LEVELS, 8, 2, chunk(b"bKGD", b"\0\xff\0\0\0\0"))
    yield "png-icc", saved(RGB, "PNG", icc_profile=b"\0" * 200)
    yield "png-icc-damaged", png(LEVELS, 8, 2, chunk(b"iCCP", b"a\0\0nonsense"))
    for value in range(1, 9):
        block = exif(value)[6:]
        yield f"png-exif-{value}", png(LEVELS, 8, 2, chunk(b"eXIf", block))
        yield f"png-exif-behind-{value}", png(LEVELS, 8, 2, behind=chunk(b"eXIf", block))
        itxt = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.format(value).encode()
        yield f"png-xmp-{value}", png(LEVELS, 8, 2, chunk(b"iTXt", itxt))
        raw = f"\nexif\n{len(exif(value)):8}\n{exif(value).hex()}\n".encode()
        yield f"png-raw-profile-{value}", png(LEVELS, 8, 2, chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)))
        yield f"png-raw-profile-text-{value}", png(LEVELS, 8, 2, chunk(b"tEXt", b"Raw profile type exif\0" + raw))
    yield "png-text", png(LEVELS, 8, 2, chunk(b"tEXt", b"Software\0a"), chunk(b"tEXt", b"Comment\0b"))
    yield "png-text-bomb", png(LEVELS, 8, 2, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 2**21)))
    yield "png-text-damaged", png(LEVELS, 8, 2, chunk(b"zTXt", b"Comment\0\0nonsense"))
    yield "png-unknown-chunk", png(LEVELS, 8, 2, chunk(b"abCd", b"x"))
    yield "png-animated", saved(RGB, "PNG", save_all=True, append_images=[GREY.convert("RGB")])
    plain = png(LEVELS, 8, 2)
    yield "png-no-end", plain[:-12]
    yield "png-cut-end", plain[:-5]
    yield "png-trailing", plain + b"more"
    yield "png-behind-cut", png(LEVELS, 8, 2, behind=b"\0\0\1\0tEXtshort")
    yield "png-bad-text-checksum", png(LEVELS, 8, 2, chunk(b"tEXt", b"a\0b")[:-1] + b"\0")
    yield "png-bad-checksum-behind", png(LEVELS, 8, 2, behind=chunk(b"tEXt", b"a\0b")[:-1] + b"\0")
    at = plain.index(b"IDAT")
    yield "png-bad-pixel-checksum", plain[:-20] + b"\0\0\0\0" + plain[-16:]
    yield "png-empty-pixels", plain[: at - 4] + chunk(b"IDAT", b"") + plain[at - 4 :]
    whole = zlib.compress(b"".join(b"\0" + row.tobytes() for row in LEVELS))
    head = plain[:33]
    yield "png-split-pixels", head + b"".join(chunk(b"IDAT", whole[i : i + 100]) for i in range(0, len(whole), 100)) + chunk(b"IEND", b"")
    yield "png-pixels-interrupted", head + chunk(b"IDAT", whole[:90]) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", whole[90:]) + chunk(b"IEND", b"")
    yield "png-bad-adler", head + chunk(b"IDAT", whole[:-4] + b"abcd") + chunk(b"IEND", b"")
    longer = zlib.compress(b"".join(b"\0" + row.tobytes() for row in LEVELS) + b"more" * 100)
    yield "png-too-many-pixels", head + chunk(b"IDAT", longer) + chunk(b"IEND", b"")
    fewer = zlib.compress(b"".join(b"\0" + row.tobytes() for row in LEVELS[:-5]))
    yield "png-too-few-pixels", head + chunk(b"IDAT", fewer) + chunk(b"IEND", b"")
    yield "png-bad-filter", head + chunk(b"IDAT", zlib.compress(b"".join(b"\x09" + row.tobytes() for row in LEVELS))) + chunk(b"IEND", b"")
    yield from damaged("png", saved(RGB, "PNG"), 24)


def webps() -> Iterator[tuple[str, bytes]]:
    for lossless in (False, True):
        for exact in (False, True):
            for name, image in (("rgb", RGB), ("rgba", RGBA), ("grey", GREY)):
                yield f"webp-{name}-{lossless}-{exact}", saved(image, "WEBP", lossless=lossless, exact=exact)
    for value in range(1, 9):
        yield f"webp-exif-{value}", saved(RGB, "WEBP", lossless=True, exif=exif(value))
        yield f"webp-exif-bare-{value}", saved(RGB, "WEBP", lossless=True, exif=exif(value)[6:])
        yield f"webp-xmp-{value}", saved(RGB, "WEBP", lossless=True, xmp=XMP.format(value).encode())
    yield "webp-icc", saved(RGB, "WEBP", lossless=True, icc_profile=b"\0" * 200)
    yield "webp-animated", saved(RGB, "WEBP", save_all=True, append_images=[GREY.convert("RGB")])
    plain = saved(RGB, "WEBP")
    yield "webp-trailing", plain + b"more"
    yield "webp-longer-than-it-is", plain[:4] + struct.pack("<I", len(plain)) + plain[8:]
    yield from damaged("webp", plain, 16)


def tiffs() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "YCbCr", "F", "I"):
        source = GREY if mode in ("F", "I") else RGBA if mode in ("LA", "RGBA") else RGB
        image = Image.merge("LAB", RGB.split()) if mode == "LAB" else source.convert(mode)
        yield f"tiff-{mode}", saved(image, "TIFF")
    yield "tiff-I16", saved(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 256 + 40), "TIFF")
    yield "tiff-I16B", saved(Image.fromarray((np.asarray(GREY).astype(np.uint16) * 256 + 40).astype(">u2")), "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd"):
        yield f"tiff-{compression}", saved(RGB, "TIFF", compression=compression)
    yield "tiff-YCbCr-jpeg", saved(RGB.convert("YCbCr"), "TIFF", compression="jpeg")
    yield "tiff-white-is-0", saved(GREY, "TIFF", tiffinfo={262: 0})
    yield "tiff-group4", saved(RGB.convert("1"), "TIFF", compression="group4")
    for value in range(1, 9):
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info[0x0112] = value
        yield f"tiff-orientation-{value}", saved(RGB, "TIFF", tiffinfo=info)
    yield "tiff-pages", saved(RGB, "TIFF", save_all=True, append_images=[GREY])
    yield "tiff-big", saved(RGB, "TIFF", big_tiff=True)
    yield from damaged("tiff", saved(RGB, "TIFF", compression="tiff_lzw"), 8)


def bmps() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"bmp-{mode}", saved((RGBA if mode == "RGBA" else RGB).convert(mode), "BMP")
    yield "bmp-top-down", bmp(24, [row[:, ::-1].tobytes() for row in LEVELS], top=True)
    yield "bmp-32", bmp(32, [np.concatenate([row[:, ::-1], row[:, :1]], 1).tobytes() for row in LEVELS])
    wide = LEVELS.astype(np.uint16)
    five = (wide[..., 0] >> 3 << 10) | (wide[..., 1] >> 3 << 5) | (wide[..., 2] >> 3)
    yield "bmp-16", bmp(16, [row.astype("<u2").tobytes() for row in five])
    six = (wide[..., 0] >> 3 << 11) | (wide[..., 1] >> 2 << 5) | (wide[..., 2] >> 3)
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    yield "bmp-16-masks", bmp(16, [row.astype("<u2").tobytes() for row in six], masks=masks, compression=3)
    four = [bytes((row[i] >> 4 << 4) | (row[min(i + 1, W - 1)] >> 4) for i in range(0, W, 2)) for row in np.asarray(GREY)]
    yield "bmp-4", bmp(4, four, palette=b"".join(bytes([i * 17, i * 16, i * 15, 0]) for i in range(16)))
    plain = saved(RGB, "BMP")
    yield "bmp-run-length", plain[:30] + b"\x01" + plain[31:]
    yield "bmp-cut", plain[: len(plain) // 2]
    yield "bmp-no-header", plain[:20]
    yield "bmp-huge", plain[:18] + struct.pack("<ii", 100_000, 100_000) + plain[26:]


def others() -> Iterator[tuple[str, bytes]]:
    for kind in ("GIF", "ICO", "PPM", "TGA", "PCX", "JPEG2000", "AVIF", "SGI", "DDS"):
        yield f"other-{kind}", saved(RGB, kind)


def damaged(name: str, plain: bytes, flips: int) -> Iterator[tuple[str, bytes]]:
    for tenth in range(1, 10):
        yield f"{name}-cut-{tenth}", plain[: len(plain) * tenth // 10]
    for end in (1, 2, 3, 5, 9, 17):
        yield f"{name}-lacks-{end}", plain[:-end]
    random = np.random.default_rng(len(plain))
    for flip in range(flips):
        changed = bytearray(plain)
        changed[int(random.integers(12, len(plain)))] ^= 1 << int(random.integers(0, 8))
        yield f"{name}-flip-{flip}", bytes(changed)


def make(folder: Path) -> None:
    for source in (jpegs(), pngs(), webps(), tiffs(), bmps(), others()):
        for name, content in source:
            (folder / name).write_bytes(content)


def read(zip: str, images: str, manifest: str) -> None:
    dataset = DatasetRef(zip=zip, images=images, manifest=manifest, classes=("0", "1"), content_hash="0" * 64)
    for split in ("train", "val"):
        items = read_split(dataset, split)  # type: ignore[arg-type]
        loaded = Images(items, [None] * len(items), StoredImages(dataset), None, draft=False, cache=[])
        for index, item in enumerate(items):
            line: dict[str, object] = {"path": item.path}
            try:
                pixels = loaded.load(index).permute(1, 2, 0).contiguous().numpy()
                line |= {"width": pixels.shape[1], "height": pixels.shape[0], "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}
            except Exception as error:  # noqa: BLE001
                line |= {"error": str(error)}
            print(json.dumps(line))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        PngImagePlugin.MAX_TEXT_CHUNK = 2**30
        make(Path(sys.argv[2]))
    else:
        read(*sys.argv[2:])
