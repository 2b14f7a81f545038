"""Recognize image files by their suffix or, if the suffix is unknown, by their first bytes."""

import re
import struct
from functools import cache

from PIL import Image

# An explicit list, because Image.open would also try EPS, which starts Ghostscript on the file, and icons, whose inner
# images Pillow decodes without a size limit. JPEG includes the MPO of phones. TGA has no signature, so it comes last.
_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000", "HEIF"),
    *("DIB", "PSD", "QOI", "DDS", "PCX", "SGI", "SUN", "FITS", "TGA"),
)

# A file with one of these suffixes counts as an image; if its content is not an image, it is a damaged image.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".avifs", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    *(".psd", ".qoi", ".dds", ".pcx", ".sgi", ".fits", ".tga"),
)
HEIF_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")
HEIF_HINT = "pip install pillow-heif"

# Raw files begin like TIFF, and Pillow would read only their small preview.
_RAW = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef"),
    *(".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw", ".x3f"),
)
_REMEDIES = {
    **dict.fromkeys(HEIF_SUFFIXES, HEIF_HINT),
    **dict.fromkeys(_RAW, "camera raw; convert to TIFF or JPEG"),
    ".jxl": "convert to PNG or JPEG",
    ".tar": "unpack it, or `source.kind` shards",
    ".zip": "unpack it",
}
# Never opened, because many of them may be stored next to the images.
_OTHERS = frozenset(
    (
        *(".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".md", ".rst", ".html", ".htm", ".ini"),
        *(".npy", ".npz", ".mat", ".pkl", ".pt", ".pth", ".safetensors", ".parquet", ".h5", ".hdf5", ".db", ".lnk"),
        *(".py", ".ipynb", ".sh", ".c", ".h", ".js", ".css", ".log", ".lock", ".pdf", ".doc", ".docx", ".svg", ".eps"),
        *(".ps", ".ai", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".mp4", ".mov", ".avi", ".mkv", ".wav", ".mp3"),
    )
)

HEAD = 32  # bytes that identify a file's format
_HEIF = re.compile(rb"(?s).{4}ftyp(hei[cxsm]|hev[cmsx]|mif1|msf1)")
# Pillow tests only the first two letters, with which many texts begin.
_STRICT = {
    "BMP": re.compile(rb"(?s)BM.{4}\0{4}"),
    "PPM": re.compile(rb"P[1-6fF]\s+[\d#]"),
}
_BY_SUFFIX_ONLY = ("DIB", "PCX", "TGA")  # no reliable signature


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, in the order they are tried; HEIF only with its plugin."""
    Image.init()
    known = set(Image.OPEN)
    try:
        import pillow_heif
    except ImportError:
        known -= {"HEIF"}
    else:
        pillow_heif.register_heif_opener()
        known |= {"HEIF"}
    return tuple(name for name in _FORMATS if name in known)


def by_suffix(suffix: str) -> bool | None:
    """Whether files with this suffix are images; None if only their content can decide.

    Args:
        suffix: lower case, with its dot; empty if the file has none.
    """
    if suffix in IMAGE_SUFFIXES or (suffix in HEIF_SUFFIXES and "HEIF" in formats()):
        return True
    return False if suffix in _OTHERS or suffix in _REMEDIES else None


def hint_of(suffix: str) -> str:
    """What the user can do so that files with this suffix are read; empty if nothing."""
    return _REMEDIES.get(suffix, "")


def by_content(head: bytes) -> bool:
    """Whether a file is an image, judged by its first bytes.

    Args:
        head: the first `HEAD` bytes, or the complete file if it is shorter.
    """
    return any(_accepts(name, head) for name in formats() if name not in _BY_SUFFIX_ONLY)


def is_heif(head: bytes) -> bool:
    """Whether a file is HEIF or HEIC, judged by its first bytes; `head` as in `by_content`."""
    return _HEIF.match(head) is not None


def _accepts(name: str, head: bytes) -> bool:
    if name in _STRICT:
        return _STRICT[name].match(head) is not None
    accept = Image.OPEN[name][1]
    try:
        return accept is not None and accept(head) is True  # a string means that Pillow was built without it
    except (SyntaxError, IndexError, TypeError, struct.error):  # Pillow's accept functions can fail on short files
        return False
