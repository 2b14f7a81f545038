"""Splits: the lists of image ids that data sets come with."""

from collections.abc import Iterator

from pseudolabel.errors import ImageListError, SourceError
from pseudolabel.io.files import files_in, is_file, join
from pseudolabel.io.image_list import ImageNames, ListedImage, read_image_list
from pseudolabel.io.walk import find_images
from pseudolabel.sources.entry import Entry, key_of

_NAMED = 3  # paths that a message names


def read_split(lists: str, split: str, images: str) -> dict[str, ListedImage]:
    """The images of a split by id, in the list's order.

    Args:
        lists: the folder where the data set's lists are.
        split: a list's name, with `.txt` or without, or the path of a list of the user's own.
        images: the folder of images; it is listed once, so that an id finds its file whatever the suffix.

    Raises:
        SourceError: if there is no such list, it names an image twice, or none of its images is in the folder.
    """
    path = _path_of(lists, split)
    names = ImageNames(find_images(images)[0])
    try:
        listed = read_image_list(
            path,
            names,
            images.rpartition("/")[2],
            f"`source.split` can be {_names_of_lists(lists)}, or the path of a list",
        )
    except ImageListError as error:
        raise SourceError(str(error)) from error
    if not any(image.file for image in listed.values()):
        tried = ", ".join(f"'{join(images, name)}' (.jpg, .png, ...)" for name in list(listed)[:_NAMED])
        raise SourceError(
            f"none of the {len(listed)} images of '{path}' is in '{images}', which holds {len(names)} images; tried "
            f"{tried}; fix `source.path`, or name another list with `source.split`"
        )
    return listed


def entries_of(listed: dict[str, ListedImage], images: str) -> Iterator[Entry]:
    """Entries without labels; what has no file is sought as `ID.jpg` and found missing when it is read."""
    for name, image in listed.items():
        yield Entry(key_of(f"{name}.jpg"), join(images, image.file or f"{name}.jpg"), (), image.origin)


def _path_of(lists: str, split: str) -> str:
    inside = [join(lists, f"{split}.txt"), join(lists, split)]
    if split.endswith(".txt"):
        return next((path for path in (split, inside[1]) if is_file(path)), split)
    return next((path for path in (*inside, split) if is_file(path)), inside[0])


def _names_of_lists(folder: str) -> str:
    lists = [path.rpartition("/")[2].removesuffix(".txt") for path in files_in(folder, ".txt")]
    return ", ".join(lists) or f"the name of a list once there is one in '{folder}'"
