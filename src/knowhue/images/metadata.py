"""Metadata of a file that is written: what its format can hold, without what no longer applies.

Thumbnails are removed because they show the gray image, and so is XMP on gain maps and videos that are not written.
XMP declares that colours are computed, by the IPTC Photo Metadata Standard 2025.1.
"""

import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any
from xml.dom import XMLNS_NAMESPACE, minidom
from xml.parsers.expat import ExpatError

from knowhue import __version__
from knowhue.errors import few, shown
from knowhue.images.containers import LONGEST_KEYWORD
from knowhue.images.image import COMMENT, ComputedBy, Image, Texts
from knowhue.images.tiff import GEOGRAPHY, exif_without_thumbnail

Fields = dict[str, bytes]

_SUBJECTS = {
    "exif-data": "EXIF was",
    "xmp-data": "XMP was",
    "iptc-data": "IPTC was",
    "photoshop-data": "Photoshop's blocks were",
    GEOGRAPHY: "GeoTIFF was",
}
_COMMENTS = "comments were"
_JPEG_BLOCK = 65_500  # bytes of a JPEG segment, less the prefix that libvips adds
_PHOTOSHOP = b"Photoshop 3.0\0"
_IPTC_BLOCK = b"8BIM\x04\x04\0\0"


def keep_metadata(image: Image, suffix: str, holds: Collection[str]) -> tuple[Fields, Texts, list[str]]:
    """Choose the metadata that still applies to an image and that its file format can hold.

    JPEG keeps IPTC (IPTC-IIM 4.2) within Photoshop's blocks, TIFF outside them; each is converted into the other.
    Orientation and size in XMP become those of the upright image. Thumbnails, and XMP on data that is not written, are
    removed. If the colours are computed, XMP declares it, see `declare`.

    Returns:
        Metadata by libvips names, texts, and sentences on what is left out.
    """
    origin, (found, lost) = image.origin, _still_valid(image)
    if suffix == ".jpg":
        found = _for_jpeg(found)
    elif suffix == ".tif":
        found = _for_tiff(found)
    kept = {name: value for name, value in found.items() if name in holds}
    texts = tuple(
        (key, text) for key, text in origin.texts if suffix == ".png" or (suffix == ".jpg" and key == COMMENT)
    )
    unsupported = [_SUBJECTS[name] for name in found if name not in kept]
    unsupported += _text_subjects([key for key, _ in origin.texts if key not in dict(texts)])
    lost += [f"{words} left out: {suffix} cannot hold that" for words in unsupported]
    if suffix == ".jpg":
        sizes = [(_SUBJECTS[name], len(value)) for name, value in kept.items()]
        sizes += [(_COMMENTS, len(text.encode())) for _, text in texts]
        lost += [
            f"{words} left out: {suffix} holds up to {_JPEG_BLOCK:,} bytes of it, not {size:,}"
            for words, size in sizes
            if size > _JPEG_BLOCK
        ]
        kept = {name: value for name, value in kept.items() if len(value) <= _JPEG_BLOCK}
        texts = tuple(each for each in texts if len(each[1].encode()) <= _JPEG_BLOCK)
    if origin.computed_by is not None:
        kept.setdefault("xmp-data", _new_xmp(origin.computed_by))
    return kept, texts, list(dict.fromkeys(lost))


def _text_subjects(keys: Collection[str]) -> list[str]:
    """Subject and verb of a sentence on texts with these keywords."""
    # several texts can have the same keyword
    named = list(dict.fromkeys(shown(key, LONGEST_KEYWORD) for key in keys if key != COMMENT))
    words = [_COMMENTS] if COMMENT in keys else []
    if named:
        words.append(f"the text{'s' * (len(named) > 1)} {few(named)} {'were' if len(named) > 1 else 'was'}")
    return words


def _still_valid(image: Image) -> tuple[Fields, list[str]]:
    """Metadata without what no longer applies, and notes on removals that concern the user."""
    found, notes = dict(image.origin.metadata), list[str]()
    for name, value in found.items():
        if name == "exif-data":
            found[name] = exif_without_thumbnail(value)
        elif name in ("iptc-data", "photoshop-data"):
            found[name] = blocks_without_thumbnail(value)
        elif name == "xmp-data":
            found[name], notes = _clean_xmp(value, image)
    return {name: value for name, value in found.items() if value}, notes


def _for_jpeg(found: Fields) -> Fields:
    blocks, iptc = found.pop("photoshop-data", None), found.get("iptc-data")
    if blocks is None and iptc is not None and not iptc.startswith(_PHOTOSHOP):
        # Photoshop's blocks are padded to even lengths
        blocks = _IPTC_BLOCK + len(iptc).to_bytes(4, "big") + iptc + b"\0" * (len(iptc) % 2)
    return found if blocks is None else found | {"iptc-data": _PHOTOSHOP + blocks}


def _for_tiff(found: Fields) -> Fields:
    iptc = found.pop("iptc-data", None)
    if iptc is not None and iptc.startswith(_PHOTOSHOP):
        found["photoshop-data"] = blocks = iptc.removeprefix(_PHOTOSHOP)
        _, block, records = blocks.partition(_IPTC_BLOCK)
        iptc = records[4 : 4 + int.from_bytes(records[:4], "big")] if block else None
    if iptc:  # padded, because libvips 8.18 passes its length in words, which libtiff takes for bytes
        found["iptc-data"] = iptc.ljust(4 * len(iptc), b"\0")
    return found


_THUMBNAIL = re.compile(rb"8BIM\x04[\x09\x0c]\0\0(.{4})", re.DOTALL)
"""Header of Photoshop's thumbnail block: its kind, no name, its size."""
_XMP_NUMBER = rb"""(%s(?:\s*=\s*["']|>)\s*)(\d+)"""
_TIFF_SPACE = b"http://ns.adobe.com/tiff/1.0/"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # UTF-16
_GOOGLE, _ADOBE = "http://ns.google.com/photos/", "http://ns.adobe.com/"
_CLAIMS = {
    f"{_ADOBE}hdr-gain-map/": ("", "a gain map"),
    "http://ns.apple.com/HDRGainMap/": ("", "a gain map"),
    "http://ns.apple.com/pixeldatainfo/": ("", "a gain map"),
    f"{_GOOGLE}1.0/container/": ("", "further images or a video in the file"),
    f"{_GOOGLE}1.0/camera/": (("MotionPhoto", "MicroVideo"), "a motion photo's video"),
    f"{_GOOGLE}1.0/image/": ("", "another version of the image"),
    f"{_GOOGLE}1.0/depthmap/": ("", "a depth map"),
    f"{_GOOGLE}1.0/audio/": ("", "sound"),
    f"{_GOOGLE}dd/": ("", "a depth map"),
    f"{_ADOBE}xmp/note/": ("HasExtendedXMP", "more XMP in another place"),
    f"{_ADOBE}xap/1.0/": ("Thumbnails", ""),
}
"""XMP properties on data that is not written, by prefix of their namespace: prefix of their names, and the data in
words, empty if the user need not know."""


def xmp_orientation(xmp: bytes) -> int | None:
    """Orientation 1 to 8, None if XMP gives none; as in Pillow and Adobe's programs, it counts if EXIF gives none."""
    plain = xmp.replace(b"\0", b"")  # so that UTF-16 reads as ASCII, too
    found = re.search(_XMP_NUMBER % b"tiff:Orientation", plain) if _TIFF_SPACE in plain else None
    return int(found[2]) if found and re.fullmatch(rb"[1-8]", found[2]) else None


_UNDECLARED = "XMP is damaged or too large, and stays as it is: it does not say that the colours are computed"
_XML_ERRORS = (ExpatError, ValueError, LookupError)
_MOST_TAGS, _MOST_LEVELS = 1 << 16, 100
"""Limits on XMP that is parsed, because a malicious packet of a few kilobytes could take minutes or nest deeply."""


def _parse(xmp: bytes) -> minidom.Document:
    if b"<!DOCTYPE" in xmp:  # entities can refer to files and expand exponentially
        raise ExpatError
    if xmp.count(b"<") > _MOST_TAGS:
        raise ExpatError
    # zeros after a packet are not XML, but in UTF-16 the last one is half of a character
    document = minidom.parseString(xmp if xmp.startswith(_UTF_16) else xmp.rstrip(b"\0"))
    nodes: list[Any] = [document]
    for _ in range(_MOST_LEVELS):
        nodes = [child for node in nodes for child in node.childNodes]
    if nodes:
        raise ExpatError
    return document


def blocks_without_thumbnail(blocks: bytes) -> bytes:
    """Photoshop's image resource blocks, with or without JPEG's prefix, without thumbnails."""
    kept, place = list[bytes](), 0
    for found in _THUMBNAIL.finditer(blocks):
        if found.start() >= place:
            size = int.from_bytes(found[1], "big")
            kept.append(blocks[place : found.start()])
            place = found.end() + size + size % 2  # blocks are padded to even lengths
    return b"".join([*kept, blocks[place:]])


def _clean_xmp(xmp: bytes, image: Image) -> tuple[bytes, list[str]]:
    """XMP (ISO 16684-1) without properties on data that is not in the file, and notes on removals and failures.

    Orientation and size are set to those of the upright image. If there is nothing else to remove or declare, the
    packet stays the same byte for byte. XMP that cannot be parsed declares nothing; it is dropped if it mentions a
    namespace whose properties would all be removed.
    """
    (height, width), computed_by = image.pixels.shape[:2], image.origin.computed_by
    numbers = {b"tiff:Orientation": 1}
    numbers |= dict.fromkeys((b"tiff:ImageWidth", b"exif:PixelXDimension"), width)
    numbers |= dict.fromkeys((b"tiff:ImageLength", b"exif:PixelYDimension"), height)
    # by regular expression, so that the rest of the packet stays the same byte for byte
    for name, number in numbers.items():
        xmp = re.sub(_XMP_NUMBER % name, rb"\g<1>%d" % number, xmp)
    is_declared = computed_by is None
    try:
        document = _parse(xmp)
    except _XML_ERRORS:
        plain = xmp.replace(b"\0", b"")  # so that UTF-16 reads as ASCII, too
        removed = [what for space, (names, what) in _CLAIMS.items() if not names and space.encode() in plain]
        xmp = b"" if removed else xmp
    else:
        removed = list(_prune(document))
        if computed_by is not None:
            is_declared = declare(document, computed_by)
        if removed or (computed_by is not None and is_declared):
            xmp = _serialize(document)
    announced = ", ".join(dict.fromkeys(filter(None, removed)))
    notes = [f"XMP no longer announces {announced}, which the file does not hold"] if announced else []
    if xmp and not is_declared:
        notes.insert(0, _UNDECLARED)
    return xmp, notes


def _serialize(document: minidom.Document) -> bytes:
    """A document as bytes, without an XML declaration, which a packet must not contain."""
    # the name of a model's folder may not be valid UTF-8, which XML cannot hold
    return "".join(node.toxml() for node in document.childNodes).encode(errors="replace")


def _prune(node: Any) -> Iterator[str]:
    """Remove the properties of `_CLAIMS` below a node; yields what they are about."""
    for part in _parts(node):
        space, name = part.namespaceURI or "", part.localName or ""
        claims = (
            what
            for start, (names, what) in _CLAIMS.items()
            if space.startswith(start) and name.startswith(names)
        )
        if (what := next(claims, None)) is not None:
            _remove(node, part)
            yield what
        else:
            yield from _prune(part)


def _parts(node: Any) -> list[Any]:
    """The attributes of a node and the nodes in it."""
    return [*(node.attributes or {}).values(), *node.childNodes]


def _remove(node: Any, part: Any) -> None:
    (node.removeAttributeNode if part.nodeType == part.ATTRIBUTE_NODE else node.removeChild)(part)


_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PREFIXES = {
    _RDF: "rdf",
    f"{_ADOBE}xap/1.0/": "xmp",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "Iptc4xmpExt",
}
"""Usual prefixes by namespace; a packet may use others."""
_CREATOR_TOOL = "xmp:CreatorTool"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for media with parts made by a trained model."""
_EMPTY_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    f'<rdf:RDF xmlns:rdf="{_RDF}"/></x:xmpmeta><?xpacket end="w"?>'
)


def declare(document: minidom.Document, computed_by: ComputedBy) -> bool:
    """Declare in XMP that colours are computed, and by which model; False if the XMP has no RDF element.

    Sets IPTC's DigitalSourceType, AISystemUsed and AISystemVersionUsed. An existing CreatorTool stays, because XMP
    defines it as the first known tool.
    """
    found = document.getElementsByTagNameNS(_RDF, "RDF")
    if not found:
        return False
    properties = {
        "Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE,
        "Iptc4xmpExt:AISystemUsed": f"Knowhue, model {computed_by.model}",
        "Iptc4xmpExt:AISystemVersionUsed": f"{__version__}, model {computed_by.fingerprint}",
    }
    described = [each for each in found[0].childNodes if each.localName == "Description"]
    # all descriptions of a packet must have the same subject
    about = described[0].getAttributeNS(_RDF, "about") if described else ""
    for each in described:
        for part in _parts(each):
            if _usual_name(part) in properties:
                _remove(each, part)
        if not any(map(_is_property, _parts(each))):
            found[0].removeChild(each)
    if _CREATOR_TOOL not in {_usual_name(part) for each in described for part in _parts(each)}:
        properties[_CREATOR_TOOL] = f"Knowhue {__version__}"
    added = document.createElementNS(_RDF, "rdf:Description")
    for space, prefix in _PREFIXES.items():
        added.setAttribute(f"xmlns:{prefix}", space)
    for name, value in {"rdf:about": about, **properties}.items():
        added.setAttribute(name, value)
    found[0].appendChild(added)
    return True


def _usual_name(part: Any) -> str:
    return f"{_PREFIXES.get(part.namespaceURI)}:{part.localName}"


def _is_property(part: Any) -> bool:
    """Whether a part of a description is a property: no namespace, subject or white space."""
    if part.nodeType == part.ATTRIBUTE_NODE:
        return part.namespaceURI not in (_RDF, XMLNS_NAMESPACE)
    return part.nodeType == part.ELEMENT_NODE


@lru_cache(maxsize=8)
def _new_xmp(computed_by: ComputedBy) -> bytes:
    document = minidom.parseString(_EMPTY_PACKET)
    declare(document, computed_by)
    return _serialize(document)
