"""Which samples there are: list files and class folders.

Both may lie behind addresses (``iwin.data.sources``). Samples packed into tar files are read by ``iwin.data.shards``,
folders with a metadata table by ``iwin.data.video_folder``.
"""

import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from iwin.data.sources import beside, exists, files_below, is_url, join, read_bytes
from iwin.errors import DataError, did_you_mean

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg"}
    | {".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"}
)
"""Files in class folders that count as videos."""

LIST_SUFFIXES = (".txt", ".csv")
"""Of files that are lists of videos, where class folders could be meant too."""

LIST_LINE = re.compile(r"(?P<path>.+?)(\s*,\s*|\s+)(?P<label>\d+)")
"""A line of a list file: the path may hold spaces and commas."""

LABEL_COLUMNS = ("label", "labels", "class", "category", "action")
"""What tables and tar files call a label."""

MAX_COUNTED = 100_000
"""Classes that are taken from the labels alone; a larger number is an identifier or a date, and no class."""

SPLIT_NAMES = (("train", "training"), ("val", "validation", "valid", "dev"), ("test", "testing", "eval"))
"""Names of the same split."""


@dataclass(frozen=True, slots=True)
class FrameFolder:
    """How a video is kept as a folder of numbered pictures.

    Attributes:
        num_frames: pictures that belong to the video.
        first: number of the first one in its name.
        template: name of a picture, a format string for its number.
    """

    num_frames: int
    first: int = 1
    template: str = "img_{:05}.jpg"


@dataclass(frozen=True, slots=True)
class ShardMember:
    """Where a video stands in a tar file.

    Attributes:
        tar: path or address of the tar file.
        offset: the video's first byte in it.
        size: the video's number of bytes.
        made_of: the path that it had in the list of which the shards were made; None where they do not tell.
    """

    tar: str
    offset: int
    size: int
    made_of: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A labelled video.

    Attributes:
        path: where it is: a file, an address, a folder of frames, or within a shard TAR/MEMBER.
        labels: its classes, counted from 0; one, except in lists of several labels a video, and none where a source
            without a label was read all the same.
        stored: how it is kept, where it is not a file of its own.
    """

    path: str
    labels: tuple[int, ...]
    stored: FrameFolder | ShardMember | None = None

    @property
    def label(self) -> int:
        """Its first class."""
        return self.labels[0]

    @property
    def key(self) -> str:
        """What tells it from the others: its path, and of a folder of frames the pictures that belong to it."""
        if not isinstance(self.stored, FrameFolder):
            return self.path
        first, count = self.stored.first, self.stored.num_frames
        return f"{self.path} ({count} frames from {self.stored.template.format(first)} on)"


@dataclass(frozen=True)
class Annotations:
    """The samples of one split.

    Attributes:
        samples: the labelled videos, in the order of their source.
        classes: class names by label, or None where the source has none.
        source: the list or folder they come from, for messages.
    """

    samples: tuple[Sample, ...]
    classes: tuple[str, ...] | None
    source: str | Path

    @property
    def num_classes(self) -> int:
        """Number of classes: of the names, or else the largest label plus one."""
        return len(self.classes) if self.classes else 1 + max(max(sample.labels, default=0) for sample in self.samples)

    def name(self, sample: Sample) -> str:
        """What messages call a video: its path, below the source where that is a folder."""
        return sample.path.removeprefix(f"{str(self.source).rstrip('/')}/")

    def count_classes(self) -> int:
        """The number of classes, for a model that takes it from the data.

        Raises:
            DataError: if the largest label without a name can be no class, naming its video.
        """
        if self.classes is None:
            highest = max(self.samples, key=lambda sample: max(sample.labels))
            if max(highest.labels) >= MAX_COUNTED:
                raise DataError(
                    f"{self.source}: {self.name(highest)} has label {max(highest.labels)}, which would make as many "
                    f"classes; labels count from 0, below {MAX_COUNTED} unless model.cls_head.num_classes or a "
                    "classes.txt says how many there are; mend it"
                )
        return self.num_classes

    def unused_labels(self) -> list[int]:
        """The classes that no video has."""
        used = {label for sample in self.samples for label in sample.labels}
        return [label for label in range(self.num_classes) if label not in used]

    def check_labels(self, num_classes: int) -> None:
        """Refuse labels that a model of `num_classes` classes does not have.

        Raises:
            DataError: naming the first such video.
        """
        for sample in self.samples:
            if max(sample.labels) >= num_classes:
                raise DataError(
                    f"{self.source}: {self.name(sample)} has label {max(sample.labels)}, but the model has "
                    f"{num_classes} classes (labels count from 0); set model.cls_head.num_classes to the number of "
                    "classes"
                )


# ------------------------------------------------------------------------------------------- list files


class FrameList(NamedTuple):
    """How a list of frame folders is to be read.

    Attributes:
        template: name of a picture, a format string for its number.
        start: number of the first picture of a folder.
        with_offset: whether the lines are `path offset frames label`: the first picture's number is start + offset.
    """

    template: str = "img_{:05}.jpg"
    start: int = 1
    with_offset: bool = False

    def stored(self, numbers: Sequence[int]) -> FrameFolder:
        """A line's numbers between the path and the label."""
        return FrameFolder(numbers[-1], self.start + (numbers[0] if self.with_offset else 0), self.template)


TRIED = 20
"""Videos at the start of a list of which one has to exist."""

SEVERAL_LABELS = re.compile(r"(?P<path>.+?)((\s*,\s*|\s+)\d+)+")
"""A path that ends in numbers, as one is read from a line of several labels."""


def read_list(
    path: str | Path,
    *,
    root: str | Path = "",
    multi_label: bool = False,
    frames: FrameList | None = None,
    strict: bool = True,
) -> Annotations:
    """Read a list file: a `path label` line for each video, separated by white space or a comma.

    Paths may hold spaces and are taken relative to `root`; both may be addresses. Blank lines and lines starting with #
    are passed over. A `classes.txt` beside the list, a name a line, gives the class names.

    Args:
        path: the list, a file or an address.
        root: what its paths are relative to.
        multi_label: whether a line can end in several labels.
        frames: for lists of frame folders, whose lines are `path frames label`.
        strict: whether lines without a label, labels without a class and first files that do not exist are refused;
            otherwise such lines become samples too, without a label where they have none.

    Raises:
        DataError: if the list cannot be read, a line (or where that is allowed, every line) is not of that form, or
            none of the first files exist.
    """
    source, root = _text(path), _text(root)
    try:
        lines = text_lines(read_bytes(source).decode("utf-8-sig"))
    except FileNotFoundError:
        raise DataError(
            f"{source}: the annotation list cannot be read (No such file or directory); set ann_file"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{source}: is not a text file in UTF-8; an annotation list holds `path label` lines") from None
    parse = _line_parser(multi_label=multi_label, frames=frames)
    wanted = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if not wanted:
        raise DataError(f"{source}: the annotation list names no video; it needs a `path label` line for each")
    samples = [parse(line.strip(" \t"), root) for _, line in wanted]
    lacking = [place for place, sample in enumerate(samples) if not sample.labels]
    if lacking and (strict or len(lacking) == len(samples)):
        number, line = wanted[lacking[0]]
        form = _form(multi_label=multi_label, frames=frames)
        raise DataError(
            f"{source}:{number}: expected `{form}` with a whole number as label, found {line.strip()!r}; "
            "`iwin data list` makes such lists of other forms"
        )
    names = beside(source, "classes.txt")
    annotations = Annotations(tuple(samples), _read_class_names(names), path)
    if not strict:
        return annotations
    if not multi_label:
        _refuse_several_labels([(number, sample) for (number, _), sample in zip(wanted, samples, strict=True)], source)
    _check_root(samples, source, root)
    if annotations.classes:
        highest = max(max(sample.labels) for sample in samples)
        if highest >= len(annotations.classes):
            raise DataError(
                f"{names}: names {len(annotations.classes)} classes, but {source} has label {highest} (labels count "
                "from 0); complete it or take it away"
            )
    return annotations


def _text(path: str | Path) -> str:
    return str(path) if path else ""


def text_lines(text: str) -> list[str]:
    """The lines of a text. `str.splitlines` would also split at characters that file names may hold."""
    return re.split(r"\r\n|\n|\r", text)


def _form(*, multi_label: bool, frames: FrameList | None) -> str:
    before = 0 if frames is None else 1 + frames.with_offset
    return ("path label", "path frames label", "path offset frames label")[before] + (" …" if multi_label else "")


def _line_parser(*, multi_label: bool, frames: FrameList | None) -> Callable[[str, str], Sample]:
    """What makes a sample of a line and the root; it has no label where the line is of another form."""
    before = 0 if frames is None else 1 + frames.with_offset
    repeats = f"{{{before + 1}{',' if multi_label else ''}}}"
    pattern = re.compile(rf"(?P<path>.+?)(?P<numbers>((\s*,\s*|\s+)-?\d+){repeats})")

    def parse(line: str, root: str) -> Sample:
        match = pattern.fullmatch(line)
        if match is None:
            return Sample(join(root, line), ())
        numbers = [int(number) for number in re.findall(r"-?\d+", match["numbers"])]
        # Lists write -1 for a label that is not known.
        labels = () if min(numbers) < 0 else tuple(dict.fromkeys(numbers[before:]))
        stored = None if frames is None else frames.stored(numbers[:before])
        return Sample(join(root, match["path"]), labels, stored)

    return parse


def _refuse_several_labels(samples: Sequence[tuple[int, Sample]], source: str) -> None:
    """Refuse lines of several labels, of which all but the last were read as a part of the path.

    Args:
        samples: the line's number and what was read from it.
        source: the list.
    """
    doubtful = [
        (number, sample, match["path"])
        for number, sample in samples
        if (match := SEVERAL_LABELS.fullmatch(sample.path)) and sample.stored is None
    ]
    for number, sample, path in doubtful[: 3 if is_url(samples[0][1].path) else TRIED]:
        if not exists(sample.path) and exists(path):
            raise DataError(
                f"{source}:{number}: names several labels of {path}; lists of several labels a video need "
                "multi_class=True (data.<split>.multi_class and model.cls_head.multi_class)"
            )


def _check_root(samples: Sequence[Sample], source: str, root: str) -> None:
    # Every address costs a request, and those of one list mostly share a server.
    first = samples[: 3 if is_url(samples[0].path) else TRIED]
    if not any(exists(sample.path) for sample in first):
        kind = "folders" if samples[0].stored else "videos"
        raise DataError(
            f"{source}: none of its first {len(first)} {kind} exists, the first would be {first[0].path}; "
            f"its paths are taken relative to data_prefix, which is {root or '.'!r}"
        )


def _read_class_names(path: str) -> tuple[str, ...] | None:
    try:
        text = read_bytes(path).decode("utf-8-sig").rstrip()
        return tuple(text_lines(text)) if text else ()
    except FileNotFoundError:
        return None
    except (DataError, UnicodeDecodeError):
        raise DataError(f"{path}: cannot be read as class names, a name a line in UTF-8") from None


# ------------------------------------------------------------------------------------------- folders


def split_folder(root: str | Path) -> str:
    """The folder of a split, which may go by another of its names: val, validation, valid or dev."""
    root = _text(root)
    parent, _, name = root.rstrip("/").rpartition("/")
    for names in SPLIT_NAMES:
        if name in names and not exists(root):
            return next((other for other in (join(parent, n) for n in names) if exists(other)), root)
    return root


def read_class_folders(root: str | Path, *, classes: Sequence[str] | None = None, strict: bool = True) -> Annotations:
    """Read a folder of class folders: root/<class>/…/<video>; labels follow the sorted class names.

    Args:
        root: the folder, or an address that can be listed.
        classes: class names by label when they are known already (a validation split takes the training split's);
            None takes the names of the folders.
        strict: whether folders that are none of the known classes, and empty ones, are refused; otherwise the first get
            the labels after those of the classes.

    Raises:
        DataError: if there is no such folder or no video in it, or a folder is none of the known classes.
    """
    source = _text(root) or "."
    videos = _videos_by_class(source)
    names = tuple(videos if classes is None else classes)
    labels = {composed(name): label for label, name in enumerate(names)}
    unknown = [name for name in videos if name not in labels]
    if unknown and strict:
        raise DataError(f"{source}: the class folder {unknown[0]!r} is not among the {len(names)} classes of the model")
    empty = [name for name, paths in videos.items() if not paths]
    labels |= {name: len(names) + place for place, name in enumerate(unknown)}
    if strict and classes is None and empty and len(empty) < len(videos):
        raise DataError(f"{join(source, empty[0])}: the class folder holds no video; take it away or fill it")
    samples = [Sample(path, (labels[name],)) for name, paths in videos.items() for path in paths]
    if not samples:
        raise DataError(f"{source}: holds no video in class folders (root/<class>/<video>)")
    return Annotations(tuple(samples), names, root)


def _videos_by_class(root: str) -> dict[str, list[str]]:
    """Paths of the videos in each class folder, hidden ones left out; the folders in sorted order, composed."""
    if not is_url(root) and not Path(root).is_dir():
        lack = "is a file" if exists(root) else "there is no such folder"
        raise DataError(f"{root}: {lack}; {_way_to_folders(root)}")
    folders = [] if is_url(root) else [folder.name for folder in Path(root).iterdir() if folder.is_dir()]
    files = list(files_below(root))
    names = sorted({composed(name) for name in (*folders, *(parts[0] for parts, _ in files if len(parts) > 1))})
    videos: dict[str, list[str]] = {name: [] for name in names if not name.startswith(".")}
    outside = []
    for parts, path in files:
        if not is_video(parts[-1]):
            continue
        if len(parts) == 1:
            outside.append(path)
        elif (name := composed(parts[0])) in videos:
            videos[name].append(path)
    if outside and any(videos.values()):
        count = f"{len(outside)} videos lie" if len(outside) > 1 else "1 video lies"
        are = "are" if len(outside) > 1 else "is"
        log.warning("%s: %s outside of the class folders and %s left out, such as %s", root, count, are, outside[0])
    return videos


def _way_to_folders(root: str) -> str:
    """What to do where there are no class folders."""
    above, name = Path(root).parent, Path(root).name
    splits = {name for names in SPLIT_NAMES for name in names}
    files = files_below(str(above)) if name in splits and above.is_dir() else iter(())
    if any(len(parts) > 1 and parts[0] not in splits and is_video(parts[-1]) for parts, _ in files):
        return f"`iwin data list {above}` divides the class folders in {above} into lists for training and validation"
    return "data_prefix must hold one folder of videos for each class"


def composed(name: str) -> str:
    """A name with its accents in one form: macOS takes letters and accents apart, others mostly do not."""
    return unicodedata.normalize("NFC", name)


def is_video(name: str) -> bool:
    """Whether a file in a class folder counts as a video."""
    return PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")


# ------------------------------------------------------------------------------------------- labels that may be names


def labels_in(value: object) -> list[str | int]:
    """A cell's labels: whole numbers as such, anything else as a class name; negative numbers are no label."""
    cells: Iterable[object] = value if isinstance(value, list) else [] if value in (None, "") else [value]
    words = [str(cell) for cell in cells]
    return [int(word) if word.isdecimal() else word for word in words if not is_negative(word)]


def is_negative(word: str) -> bool:
    """Whether a label is a negative number, by which data sets say that it is not known."""
    return word.startswith("-") and word[1:].isdecimal()


def label_samples(
    entries: Sequence[tuple[str, Sequence[str | int], ShardMember | None]],
    *,
    source: str,
    classes: Sequence[str] | None,
    multi_label: bool,
    strict: bool = True,
) -> Annotations:
    """Samples of labels that may be numbers or class names; unless they are known, the classes are the sorted names.

    Args:
        entries: path, labels and place of each sample.
        source: what they come from, for messages.
        classes: class names by label when they are known already.
        multi_label: whether a sample can have several labels.
        strict: whether names that are none of the known classes, and samples without a label, are refused; otherwise
            the first get the labels after those of the classes.

    Raises:
        DataError: if a name is none of the known classes, or a sample has no label, or several without `multi_label`.
    """
    worded = {composed(label) for _, found, _ in entries for label in found if isinstance(label, str)}
    known = tuple(classes or sorted(worded)) or None
    number = {composed(name): label for label, name in enumerate(known or ())}
    unknown = sorted(worded - number.keys())
    if unknown and strict:
        name = unknown[0]
        hint = did_you_mean(name, number)
        raise DataError(f"{source}: the class {name!r} is not among the {len(number)} classes of the model{hint}")
    number |= {name: len(number) + place for place, name in enumerate(unknown)}
    samples = []
    for path, found, stored in entries:
        if (not found and strict) or (len(found) > 1 and not multi_label):
            count = f"{len(found)} labels; several labels a video need multi_class=True" if found else "no label"
            raise DataError(f"{source}: {path} has {count}")
        labels = dict.fromkeys(number[composed(label)] if isinstance(label, str) else label for label in found)
        samples.append(Sample(path, tuple(labels), stored))
    return Annotations(tuple(samples), known, source)
