"""HVU, Holistic Video Understanding: tags of six categories for every clip (Diba et al., ECCV 2020)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iwin.errors import DataError, did_you_mean
from iwin.prepare.formats.base import Choice, Format
from iwin.prepare.formats.rows import UNDIVIDED, Reading, Row
from iwin.prepare.formats.source import Source, head, json_of, records_of, split_of, table_of

Clip = tuple[tuple[str, ...], list[str]]
"""What a clip may be called, and its tags."""

_COLUMNS = ("tags", "youtube_id", "time_start", "time_end")


def _columns(path: Path) -> list[str]:
    return [cell.strip().lower() for cell in (*head(path), "")[0].split(",")]


def _files(source: Source) -> list[Path]:
    return [path for path in source.named(r".*\.csv") if set(_COLUMNS) <= set(_columns(path))] + [
        path for path in source.named(r".*\.json") if _is_json(path)
    ]


def _is_json(path: Path) -> bool:
    """Whether a file is the form that mmaction2 gives to HVU: labels by category."""
    start = "".join(head(path))[:4096].replace(" ", "")
    return start.startswith("[{") and '"label":{' in start and ('"filename":' in start or '"frame_dir":' in start)


def _read(source: Source, files: Sequence[Path], choice: Choice) -> Reading:
    tags = _tags(source)
    unknown = [category for category in choice.tags if category not in tags]
    if unknown:
        raise DataError(
            f"--tags {unknown[0]}: there is no such category of tags{did_you_mean(unknown[0], tags)}; "
            f"there are {', '.join(sorted(tags))}"
        )
    categories = [category for category in sorted(tags) if not choice.tags or category in choice.tags]
    wanted = [tag for category in categories for tag in tags[category]]
    known = {tag for names in tags.values() for tag in names}
    reading = Reading({}, tuple(wanted))
    for path in files:
        rows = _json_rows(path, tags) if path.suffix.lower() == ".json" else _csv_rows(path)
        for names, own in rows:
            if unknown := [tag for tag in own if tag not in known]:
                raise DataError(f"{path}: the tag {unknown[0]!r} of {names[0]} is in no category of tags")
            kept = set(own)
            reading.add(split_of(path) or UNDIVIDED, Row(names, tuple(tag for tag in wanted if tag in kept)))
    chosen = "all categories" if not choice.tags else f"the categories {', '.join(categories)}"
    reading.notes.append(f"{len(wanted)} tags of {chosen}; clips without any of them count as without a label")
    return reading


def _csv_rows(path: Path) -> list[Clip]:
    table = table_of(path)
    columns = [cell.lower() for cell in table[0]]
    rows: list[Clip] = []
    for number, cells in enumerate(table[1:], 2):
        row = dict(zip(columns, cells, strict=False))
        try:
            start, end = float(row["time_start"]), float(row["time_end"])
            seconds, tenths = (f"{int(start * by):06}_{int(end * by):06}" for by in (1, 10))
        except (KeyError, OverflowError, ValueError):
            raise DataError(f"{path}:{number}: expected {', '.join(_COLUMNS)}, found {','.join(cells)!r}") from None
        video = row["youtube_id"]
        # The usual downloader writes tenths of seconds, for the times have a decimal.
        names = tuple(f"{video}_{time}.mp4" for time in (tenths, seconds, f"{start}_{end}"))
        rows.append(((*names, f"{video}.mp4"), [tag for tag in row["tags"].split("|") if tag]))
    return rows


def _json_rows(path: Path, tags: dict[str, list[str]]) -> list[Clip]:
    rows: list[Clip] = []
    for clip in records_of(path, json_of(path), ["label"]):
        name = str(clip.get("filename") or clip.get("frame_dir"))
        try:
            own = [tags[category][number] for category, numbers in clip["label"].items() for number in numbers]
        except (KeyError, IndexError):
            raise DataError(f"{path}: {name} has a tag that the list of categories does not have") from None
        rows.append(((name,), own))
    return rows


def _tags(source: Source) -> dict[str, list[str]]:
    """The tags of each category, in alphabetical order."""
    for path in source.beside(r".*\.csv"):
        if _columns(path) == ["tag", "category"]:
            tags: dict[str, list[str]] = {}
            for row in table_of(path)[1:]:
                if len(row) != 2:
                    raise DataError(f"{path}: expected a tag and its category a line, found {','.join(row)!r}")
                tags.setdefault(row[1], []).append(row[0])
            return {category: sorted(names) for category, names in tags.items()}
    for path in source.beside(r".*tags\.json"):
        value: Any = json_of(path)
        if isinstance(value, dict) and all(isinstance(names, list) for names in value.values()):
            return {category: list(map(str, names)) for category, names in value.items()}
    raise DataError(
        f"{source.folder}: needs the categories of the tags (HVU_Tags_Categories_V1.0.csv) beside the lists of clips"
    )


FORMAT = Format(
    name="hvu",
    title="HVU tags, several labels a video",
    expects="HVU_Train_V1.0.csv and HVU_Val_V1.0.csv, and HVU_Tags_Categories_V1.0.csv",
    files=_files,
    read=_read,
)
