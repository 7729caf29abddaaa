"""What every annotation format offers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iwin.prepare.formats.rows import Reading
from iwin.prepare.formats.source import Source


@dataclass(frozen=True)
class Choice:
    """What is wanted of annotations that offer several things.

    Attributes:
        fold: which of the divisions that the data set publishes, from 1.
        tags: the categories of tags that become labels; empty takes all.
        segments: annotated parts of videos instead of whole videos.
        path_column: the column of a table that names the videos; None finds it.
        label_column: the column of a table that holds the labels; None finds it.
        named: whether the names of all classes are known from elsewhere.
    """

    fold: int = 1
    tags: tuple[str, ...] = ("action",)
    segments: bool = False
    path_column: str | None = None
    label_column: str | None = None
    named: bool = False


@dataclass(frozen=True)
class Format:
    """A way in which data sets are annotated.

    Attributes:
        name: what the user calls it.
        title: what it is.
        expects: the files that it consists of, for messages.
        files: the annotation files of this format in a source; none where it is another format.
        read: reads those files.
        aliases: other names.
        is_general: whether it is a form that any data set can have; a data set's own format goes before it.
    """

    name: str
    title: str
    expects: str
    files: Callable[[Source], Sequence[Path]]
    read: Callable[[Source, Sequence[Path], Choice], Reading]
    aliases: tuple[str, ...] = ()
    is_general: bool = False
