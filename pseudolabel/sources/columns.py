"""Which columns of a table hold what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pseudolabel.errors import SettingError, SourceError

# What a column may be called, the first one before the second.
_NAMES = {"image": ("image", "file_name"), "labels": ("labels", "label"), "key": ("key",), "mask": ("mask",)}
_EXAMPLE = "image=path,labels=tags"


@dataclass(frozen=True)
class Columns:
    """Chooses a table's columns by what the user and the header call them.

    Attributes:
        named: column by part (`image`, `labels`, `key`, `mask`), as the user named them.
        required: the parts that there must be.
    """

    named: Mapping[str, str]
    required: tuple[str, ...] = ("image", "labels")

    def find(self, found: Sequence[str], origin: str) -> dict[str, str]:
        """The column of each part that there is, as the table writes it; blanks around names and case do not matter.

        Raises:
            SourceError: if a required or named column is missing, or there are two of a name; the message says how to
                name them.
        """
        chosen = {}
        for part, names in _NAMES.items():
            for name in (self.named[part],) if part in self.named else names:
                fitting = [column for column in found if column == name] or [
                    column for column in found if column.strip().casefold() == name.strip().casefold()
                ]
                if len(fitting) > 1:
                    raise SourceError(f"{origin}: two columns are called '{name}'; rename one of them")
                if fitting:
                    chosen[part] = fitting[0]
                    break
            else:
                if part in self.named or part in self.required:
                    wanted = f"'{self.named[part]}'" if part in self.named else " or ".join(f"'{n}'" for n in names)
                    there = ", ".join(map(repr, found)) or "none"
                    raise SourceError(
                        f"{origin}: no column {wanted}; found {there}; say which columns there are, such as "
                        f"`source.columns` {_EXAMPLE}"
                    )
        return chosen

    def fit(self, found: Sequence[str]) -> bool:
        """Whether the column of the images is there."""
        try:
            named = {part: name for part, name in self.named.items() if part == "image"}
            return "image" in Columns(named, ("image",)).find(found, "")
        except SourceError:
            return False


def parse_columns(text: str) -> dict[str, str]:
    """Column by part from `image=path,labels=tags`.

    Raises:
        SettingError: if the text is not of that form.
    """
    named = {}
    for assignment in text.split(",") if text.strip() else ():
        part, equals, column = (word.strip() for word in assignment.partition("="))
        if part not in _NAMES or not equals or not column:
            raise SettingError(
                f"`source.columns` '{text}': '{assignment}' is not PART=COLUMN, such as {_EXAMPLE}; the parts are "
                f"{', '.join(_NAMES)}"
            )
        if part in named:
            raise SettingError(f"`source.columns` '{text}' names a column for {part} twice")
        named[part] = column
    return named
