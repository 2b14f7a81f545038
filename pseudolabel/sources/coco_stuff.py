"""COCO-Stuff-27: COCO's images with all of their pixels in 27 super-categories.

Caesar et al. 2018 labelled them; the lists of images to score on are Ji et al.'s (IIC, 2019).
"""

from collections.abc import Sequence

from pseudolabel.config import SourceConfig
from pseudolabel.io.files import find_folder, join
from pseudolabel.io.left_out import LeftOut
from pseudolabel.io.walk import find_images
from pseudolabel.records import IGNORE
from pseudolabel.sources.entry import Entry, key_of
from pseudolabel.sources.listing import Listing
from pseudolabel.sources.masks import MaskFiles, MaskFolder, labels_by_value, open_mask_folder
from pseudolabel.sources.split import entries_of, read_split
from pseudolabel.vocabulary import Vocabulary

_HINT_IMAGES = "unpack http://images.cocodataset.org/zips/val2017.zip in `source.path`"
_HINT_MASKS = (
    "unpack stuffthingmaps_trainval2017.zip from https://github.com/nightrome/cocostuff (Downloads) in the folder "
    "stuffthingmaps of `source.path`"
)
_HINT_LIST = (
    "unpack COCOStuff164kCurated.tar.gz from https://www.robots.ox.ac.uk/~xuji/datasets/ as the folder curated of "
    "`source.path`, or set `source.split` to val2017 for all of its images"
)

# The super-categories of COCO-Stuff's hierarchy by the values of its pixel maps, which are its label numbers minus 1.
# Among the first 91 values 11 are of things that COCO has given up; no map holds them.
SUPER_CATEGORIES: dict[str, Sequence[int]] = {
    "person": [0],
    "vehicle": range(1, 9),
    "outdoor": range(9, 15),
    "animal": range(15, 25),
    "accessory": range(25, 33),
    "sports": range(33, 43),
    "kitchen": range(43, 51),
    "food-things": range(51, 61),
    "furniture-things": range(61, 71),
    "electronic": range(71, 77),
    "appliance": range(77, 83),
    "indoor": range(83, 91),
    "textile": [91, 92, 103, 104, 108, 130, 136, 140, 151, 166, 167],
    "plant": [93, 96, 118, 123, 128, 133, 141, 162, 168],
    "building": [94, 95, 127, 150, 157, 165],
    "furniture-stuff": [97, 106, 107, 109, 111, 122, 129, 132, 155, 160, 164],
    "structural": [98, 112, 137, 145, 163],
    "raw-material": [99, 131, 138, 142],
    "floor": [100, *range(113, 118)],
    "ceiling": [101, 102],
    "sky": [105, 156],
    "ground": [110, 124, 125, 135, 139, 143, 144, 146, 148, 153, 158],
    "water": [119, 147, 154, 177, 178],
    "food-stuff": [120, 121, 152, 169],
    "solid": [126, 134, 149, 159, 161, 181],
    "wall": range(170, 177),
    "window": [179, 180],
}


def list_coco_stuff(config: SourceConfig, vocabulary: Vocabulary) -> Listing:
    """List images of COCO-Stuff; they come without labels.

    `config.split` is a folder of images, `val2017`, or a list of some of them in `curated/`: DiffSeg and those before
    it score on `val2017/Coco164kFull_Stuff_Coarse_7`. Images lie in `val2017/` or `images/val2017/`, the pixel maps in
    `stuffthingmaps/val2017/` or `annotations/val2017/`. Ground truth comes from those maps or from `config.masks`;
    unlabelled pixels (255) are ignored.

    Raises:
        SourceError: if images, list or maps are missing, or the vocabulary has other classes.
    """
    root = config.path.rstrip("/") or "/"
    part, _, is_list = config.split.partition("/")
    images = find_folder(root, [part, f"images/{part}"], _HINT_IMAGES)
    left_out = LeftOut()
    if is_list:
        entries = list(entries_of(read_split(find_folder(root, ["curated"], _HINT_LIST), config.split, images), images))
    else:
        names, left_out = find_images(images)
        paths = {name: join(images, name) for name in names}
        entries = [Entry(key_of(name), path, (), path) for name, path in paths.items()]
    if config.masks:
        return Listing(entries, open_mask_folder(config.masks, images, entries), left_out)
    return Listing(entries, _open_maps(root, part, images, vocabulary), left_out)


def _open_maps(root: str, part: str, images: str, vocabulary: Vocabulary) -> MaskFiles:
    maps = find_folder(root, [f"stuffthingmaps/{part}", f"annotations/{part}"], _HINT_MASKS)
    names = {value: name for name, values in SUPER_CATEGORIES.items() for value in values}
    labels = {**labels_by_value(names, vocabulary, "coco27"), IGNORE: IGNORE}
    return MaskFiles(MaskFolder(maps, images), labels=labels)
