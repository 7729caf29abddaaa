"""Where data sets can be had: those with direct links, and what to do about the others.

The addresses were collected from the data sets' own pages and from public scripts; they were not tried by this
project's tests, which use no network.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from iwin.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Part:
    """A part of a data set that can be chosen.

    Attributes:
        name: what the user calls it.
        what: what it is, with its size as its source tells it.
        urls: the files.
        index: a file with an address a line, which are the files.
        folder: where they go, below the folder for all.
    """

    name: str
    what: str
    urls: tuple[str, ...] = ()
    index: str | None = None
    folder: str = ""


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: what the user calls it.
        title: its name.
        page: the page of its authors.
        parts: what has direct links.
        advice: what else there is to do.
        aliases: other names.
    """

    name: str
    title: str
    page: str
    parts: tuple[Part, ...] = ()
    advice: str = ""
    aliases: tuple[str, ...] = ()


_S3 = "https://s3.amazonaws.com/kinetics"
_UCF = "https://www.crcv.ucf.edu/data/UCF101"
_HMDB = "http://serre-lab.clps.brown.edu/wp-content/uploads/2013/10"
_DIVING = "http://www.svcl.ucsd.edu/projects/resound"
_GYM = "https://sdolivia.github.io/FineGym/resources/dataset"
_QUALCOMM = "https://www.qualcomm.com/developer/software"

_UNPACK_UCF = "unpack UCF101.rar with unrar (`unrar x UCF101.rar`) and the lists with unzip"
_BY_FORM = "its videos are given on application: fill in the form on its page, and unpack what you get into one folder"
_BY_ACCOUNT = "its files are given to registered users: make an account on that page and accept the licence"


def _kinetics(size: int, folder: str, *, lists: tuple[str, ...], sizes: str, more: tuple[Part, ...] = ()) -> DataSet:
    short = f"k{size}" if size != 700 else "k700_2020"
    videos = tuple(
        Part(split, f"videos of {split}", index=f"{_S3}/{folder}/{split}/{short}_{split}_path.txt", folder=split)
        for split in ("train", "val", "test")
    )
    annotations = tuple(f"{_S3}/{folder}/annotations/{name}" for name in lists)
    return DataSet(
        f"kinetics{size}",
        f"Kinetics-{size}{' (2020)' if size == 700 else ''}",
        "https://github.com/cvdfoundation/kinetics-dataset",
        (Part("annotations", "lists", annotations, folder="annotations"), *videos, *more),
        f"the copy of the CVDF, {sizes}; unpack every .tar.gz of a split into one folder with tar",
    )


_REPLACEMENT = Part(
    "replacement",
    "about 1,400 videos that are broken in train",
    (f"{_S3}/400/replacement_for_corrupted_k400.tgz",),
    folder="replacement",
)

DATA_SETS = (
    DataSet(
        "ucf101",
        "UCF101",
        "https://www.crcv.ucf.edu/research/data-sets/ucf101/",
        (
            Part("videos", "videos, 6.5 GB", (f"{_UCF}/UCF101.rar",)),
            Part("annotations", "lists", (f"{_UCF}/UCF101TrainTestSplits-RecognitionTask.zip",)),
        ),
        f"{_UNPACK_UCF}; if its certificate is refused, fetch the files with a browser",
    ),
    DataSet(
        "hmdb51",
        "HMDB51",
        "https://serre.lab.brown.edu/hmdb51.html",
        (
            Part("videos", "videos, 2.1 GB", (f"{_HMDB}/hmdb51_org.rar",)),
            Part("annotations", "lists", (f"{_HMDB}/test_train_splits.rar",)),
        ),
        "unpack with unrar, then the archive of each class in it; this server is reported to be gone since 2025, and "
        "the page may name another place",
    ),
    _kinetics(400, "400", lists=("train.csv", "val.csv", "test.csv"), sizes="436 GB", more=(_REPLACEMENT,)),
    _kinetics(600, "600", lists=("train.txt", "val.txt", "test.csv"), sizes="about 730 GB"),
    _kinetics(700, "700_2020", lists=("train.csv", "val.csv", "test.csv"), sizes="about 870 GB"),
    DataSet(
        "diving48",
        "Diving48",
        f"{_DIVING}/dataset.html",
        (
            Part("videos", "videos", (f"{_DIVING}/Diving48_rgb.tar.gz",)),
            Part(
                "annotations",
                "lists, version 2",
                tuple(f"{_DIVING}/Diving48_{name}.json" for name in ("V2_train", "V2_test", "vocab")),
            ),
        ),
        "unpack with tar",
    ),
    DataSet(
        "finegym",
        "FineGYM",
        "https://sdolivia.github.io/FineGym/",
        (
            Part(
                "annotations",
                "times, lists and categories of Gym99 and Gym288",
                tuple(
                    f"{_GYM}/{name}"
                    for name in (
                        *("finegym_annotation_info_v1.1.json", "gym99_categories.txt", "gym288_categories.txt"),
                        *("gym99_train_element_v1.1.txt", "gym99_val_element.txt"),
                        *("gym288_train_element_v1.1.txt", "gym288_val_element.txt"),
                    )
                ),
            ),
        ),
        "its videos are on YouTube, by the names in the times' file",
    ),
    DataSet(
        "activitynet",
        "ActivityNet",
        "http://activity-net.org/download.html",
        (
            Part(
                "annotations",
                "videos, classes and times, version 1.3",
                ("http://ec2-52-25-205-214.us-west-2.compute.amazonaws.com/files/activity_net.v1-3.min.json",),
            ),
        ),
        _BY_FORM,
    ),
    DataSet(
        "something-v2",
        "Something-Something V2",
        f"{_QUALCOMM}/something-something-v-2-dataset",
        advice=_BY_ACCOUNT,
        aliases=("ssv2", "sthv2", "something-something-v2"),
    ),
    DataSet(
        "something-v1",
        "Something-Something V1",
        f"{_QUALCOMM}/something-something-v-2-dataset",
        advice=_BY_ACCOUNT,
        aliases=("ssv1", "sthv1", "something-something-v1"),
    ),
    DataSet("jester", "Jester", f"{_QUALCOMM}/jester-dataset", advice=_BY_ACCOUNT),
    DataSet(
        "moments",
        "Moments in Time",
        "http://moments.csail.mit.edu/",
        advice=_BY_FORM,
        aliases=("mit", "moments-in-time"),
    ),
    DataSet(
        "multi-moments",
        "Multi-Moments in Time",
        "http://moments.csail.mit.edu/",
        advice=_BY_FORM,
        aliases=("mmit", "multi-moments-in-time"),
    ),
    DataSet(
        "hvu",
        "HVU",
        "https://github.com/holistic-video-understanding/HVU-Dataset",
        advice="its lists are in that repository, its videos on YouTube or by the form that is linked there",
    ),
)


def find_data_set(name: str) -> DataSet:
    """The data set of a name.

    Raises:
        DataError: if there is none.
    """
    known = {word: each for each in DATA_SETS for word in (each.name, *each.aliases)}
    if name.lower() not in known:
        raise DataError(
            f"{name}: there is no such data set{did_you_mean(name, known)}; "
            f"there are {', '.join(each.name for each in DATA_SETS)}"
        )
    return known[name.lower()]


def mirrored(url: str, mirror: str | None) -> str:
    """The address on another server that has the same paths, or the address itself where there is none."""
    return f"{mirror.rstrip('/')}{urlsplit(url).path}" if mirror else url
