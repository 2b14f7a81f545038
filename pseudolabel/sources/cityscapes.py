"""Cityscapes: street scenes with fine masks (Cordts et al. 2016), in the 27 classes of unsupervised segmentation."""

from pseudolabel.config import SourceConfig
from pseudolabel.io.files import Location, find_folder, join
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.walk import find_images
from pseudolabel.records import IGNORE
from pseudolabel.sources.entry import Entry, key_of
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import ListedMasks, MaskFiles, labels_by_value, open_mask_folder
from pseudolabel.vocabulary import Vocabulary

_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"
_HINT = (
    "`source.path` needs the folder where leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of "
    "https://www.cityscapes-dataset.com/downloads/ are unpacked, and `source.split` is train or val"
)

# Label ids 7 to 33; those below are void: unlabeled, ego vehicle, rectification border, out of roi, static, dynamic and
# ground.
_FIRST_ID = 7
_NAMES = (
    *("road", "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel"),
    *("pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider"),
    *("car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
)


def list_cityscapes(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List `leftImg8bit/<split>/<city>/*_leftImg8bit.png`; the images come without labels.

    Ground truth comes from `gtFine/<split>/<city>/*_gtFine_labelIds.png` or from `config.masks`; void pixels are
    ignored. Keys are the names without suffix, such as `frankfurt_000000_000294`.

    Raises:
        SourceError: if images or masks are missing, or the vocabulary has other classes.
    """
    root = config.path.rstrip("/") or "/"
    images = find_folder(root, [f"leftImg8bit/{config.split}"], _HINT)
    found, left_out = find_images(images)
    names = [name.removesuffix(_IMAGE) for name in found if name.endswith(_IMAGE)]
    left_out += LeftOut({f"not named *{_IMAGE}": len(found) - len(names)})
    entries = {name: _entry(join(images, f"{name}{_IMAGE}"), name) for name in names}
    if config.masks:
        masks = open_mask_folder(config.masks, entries=list(entries.values()))
        return Listing(list(entries.values()), masks, left_out)
    folder = find_folder(root, [f"gtFine/{config.split}"], _HINT)
    places = {entry.key: Location(join(folder, f"{name}{_MASK}")) for name, entry in entries.items()}
    labels = dict.fromkeys((*range(_FIRST_ID), IGNORE), IGNORE)
    labels |= labels_by_value(dict(enumerate(_NAMES, _FIRST_ID)), vocabulary, "cityscapes27")
    return Listing(list(entries.values()), MaskFiles(ListedMasks(places), labels=labels), left_out)


def _entry(path: str, name: str) -> Entry:
    return Entry(key_of(f"{name.rpartition('/')[2]}.png"), path, (), path)
