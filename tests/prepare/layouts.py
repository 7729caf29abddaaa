"""Miniature copies of published data sets: their own annotation lines, tiny real videos and frame folders.

Each function fills a folder and returns it; `LAYOUTS` names them all. The lines are as in the published files.
"""

import functools
import json
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.videos import numbered_frames, write_video


@functools.cache
def video_bytes(suffix: str = ".mp4") -> bytes:
    """A real video of four small frames."""
    codecs = {".webm": "libvpx-vp9", ".avi": "mpeg4"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"tiny{suffix}")
        frames = numbered_frames(4, height=16, width=32)
        return write_video(path, frames, codec=codecs.get(suffix, "libx264"), bframes=0).read_bytes()


@functools.cache
def image_bytes() -> bytes:
    """A real JPEG image."""
    encoder = av.VideoCodecContext.create("mjpeg", "w")
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = 8, 16, "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.full((8, 16, 3), 99, np.uint8), format="rgb24")
    return b"".join(bytes(packet) for packet in encoder.encode(frame.reformat(format="yuvj420p")))


def videos(root: Path, *names: str) -> None:
    """Put a video at each of these paths."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video_bytes(path.suffix.lower()))


def frames(root: Path, name: str, count: int, template: str = "{:05}.jpg", first: int = 1) -> None:
    """Make a folder of frames."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        (folder / template.format(number)).write_bytes(image_bytes())


def write(root: Path, name: str, text: str, *, ends: str = "\n") -> None:
    """Write an annotation file."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.replace("\n", ends).encode())


def ucf101(root: Path) -> Path:
    """UCF101: lists with Windows line ends, and a class that its files spell in two ways."""
    lists = "ucfTrainTestlist"
    write(root, f"{lists}/classInd.txt", "1 ApplyEyeMakeup\n2 ApplyLipstick\n3 HandstandPushups\n", ends="\r\n")
    for number, train, test in (("01", "g08", "g01"), ("02", "g01", "g08")):
        names = [
            f"ApplyEyeMakeup/v_ApplyEyeMakeup_{{}}_c01.avi{' 1'}",
            f"ApplyLipstick/v_ApplyLipstick_{{}}_c01.avi{' 2'}",
            f"HandstandPushups/v_HandStandPushups_{{}}_c01.avi{' 3'}",
        ]
        write(root, f"{lists}/trainlist{number}.txt", "".join(f"{n.format(train)}\n" for n in names), ends="\r\n")
        without = [name.rpartition(" ")[0] for name in names]
        write(root, f"{lists}/testlist{number}.txt", "".join(f"{n.format(test)}\n" for n in without), ends="\r\n")
    for group in ("g01", "g08"):
        videos(
            root / "UCF-101",
            f"ApplyEyeMakeup/v_ApplyEyeMakeup_{group}_c01.avi",
            f"ApplyLipstick/v_ApplyLipstick_{group}_c01.avi",
            f"HandstandPushups/v_HandstandPushups_{group}_c01.avi",
        )
    return root


def hmdb51(root: Path) -> Path:
    """HMDB51: names with characters that shells and lists mind, blanks at the lines' ends."""
    splits = "testTrainMulti_7030_splits"
    brush = (
        "April_09_brush_hair_u_nm_np1_ba_goo_0.avi",
        "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi",
        "My_Hair_Routine_(part;1)_[x]&!_brush_hair_h_nm_np1_le_goo_0.avi",
    )
    clap = ("(Rad)Schlag_die_Bank!_clap_f_cm_np1_le_med_0.avi", "A_clap_u_nm_np1_fr_med_1.avi")
    for number in (1, 2, 3):
        uses = (1, 2, 0) if number == 1 else (2, 1, 0)
        text = "".join(f"{name} {use} \n" for name, use in zip(brush, uses, strict=True))
        write(root, f"{splits}/brush_hair_test_split{number}.txt", text)
        write(root, f"{splits}/clap_test_split{number}.txt", f"{clap[0]} 1 \n{clap[1]} 2 \n")
    videos(root / "hmdb51_org" / "brush_hair", *brush)
    videos(root / "hmdb51_org" / "clap", *clap)
    return root


KINETICS_HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"


def kinetics(root: Path) -> Path:
    """Kinetics-400: class folders as the downloaders write them, a repeated row, a vanished video."""
    write(
        root,
        "annotations/train.csv",
        KINETICS_HEADER + '"petting animal (not cat)",-0j2Wd2AQXs,5,15,train,0\n'
        "massaging person's head,_qMLaSqyXBs,0,10,train,0\n"
        "massaging person's head,_qMLaSqyXBs,0,10,train,0\n",
    )
    write(
        root,
        "annotations/val.csv",
        "\ufeff" + KINETICS_HEADER + '"air drumming",_dbcJuKJQNs,40,50,val,0\n"air drumming",gone00000_x,1,11,val,0\n',
    )
    write(root, "annotations/test.csv", "youtube_id,time_start,time_end,split\n--6bJUbfpnQ,17,27,test\n")
    videos(
        root,
        "train/petting_animal_not_cat/-0j2Wd2AQXs_000005_000015.mp4",
        "train/massaging_persons_head/_qMLaSqyXBs_000000_000010.mp4",
        "val/air drumming/_dbcJuKJQNs_000040_000050.mp4",
    )
    return root


def kinetics_cvdf(root: Path) -> Path:
    """Kinetics as the CVDF packs it: all videos of a split in one folder."""
    write(
        root,
        "annotations/train.csv",
        KINETICS_HEADER + "zumba,AbCdEfGhIjK,0,10,train,0\nabseiling,aBcDeFgHiJk,0,10,train,1\n",
    )
    write(root, "annotations/val.csv", KINETICS_HEADER + "zumba,_dbcJuKJQNs,40,50,val,0\n")
    videos(root, "train/AbCdEfGhIjK_000000_000010.mp4", "train/aBcDeFgHiJk_000000_000010.mp4")
    videos(root, "val/_dbcJuKJQNs_000040_000050.mp4")
    return root


def something_v2(root: Path) -> Path:
    """Something-Something V2: templates with brackets, ids as strings, a test part with answers beside it."""
    labels = {
        "Holding something next to something": "2",
        "Approaching something with your camera": "0",
        "Pretending to put something into something, but it doesn't fit": "1",
    }
    write(root, "labels/labels.json", json.dumps(labels))
    train = [
        ("78687", 'holding "potato" next to vicks vaporub bottle', "Holding [something] next to [something]"),
        (
            "42326",
            "putting book, but it doesn't fit",
            "Pretending to put [something] into [something], but it doesn't fit",
        ),
    ]
    write(root, "labels/train.json", json.dumps([_v2(*video) for video in train]))
    validation = [("74225", "approaching shoe", "Approaching [something] with your camera")]
    write(root, "labels/validation.json", json.dumps([_v2(*video) for video in validation], indent=1))
    write(root, "labels/test.json", json.dumps([{"id": "1420"}]))
    write(root, "labels/test-answers.csv", "1420;Holding something next to something\n")
    videos(root / "20bn-something-something-v2", *(f"{number}.webm" for number in (78687, 42326, 74225, 1420)))
    return root


def _v2(number: str, label: str, template: str) -> dict[str, object]:
    return {"id": number, "label": label, "template": template, "placeholders": ["potato"]}


def something_v1(root: Path) -> Path:
    """Something-Something V1: frame folders, labels with commas and quotes, a test list without labels."""
    prefix = "annotations/something-something-v1"
    write(root, f"{prefix}-labels.csv", "Holding something\nPutting something, something and something on the table\n")
    write(root, f"{prefix}-train.csv", "100218;Putting something, something and something on the table\n")
    write(root, f"{prefix}-validation.csv", "26;Holding something\n")
    write(root, f"{prefix}-test.csv", "105723\n92112\n")
    for name, count in (("100218", 5), ("26", 3), ("105723", 2)):
        frames(root / "20bn-something-something-v1", name, count)
    return root


def jester(root: Path) -> Path:
    """Jester: frame folders, and a test list with nothing behind the semicolon."""
    write(root, "labels/jester-v1-labels.csv", "Swiping Left\nDoing other things\nDrumming Fingers\n")
    write(root, "labels/jester-v1-train.csv", "34870;Drumming Fingers\n56557;Doing other things\n", ends="\r\n")
    write(root, "labels/jester-v1-validation.csv", "9223;Swiping Left\n")
    write(root, "labels/jester-v1-test.csv", "1;\n")
    for name, count in (("34870", 4), ("56557", 3), ("9223", 2), ("1", 2)):
        frames(root / "20bn-jester-v1", name, count)
    return root


def moments(root: Path) -> Path:
    """Moments in Time: numbered categories, and the votes behind each label."""
    write(root, "moments_categories.txt", "clapping,0\nadult+female+singing,1\nblocking,2\n")
    write(
        root,
        "trainingSet.csv",
        "blocking/getty-karate-video-id635808620_4.mp4,blocking,4,0\n"
        "adult+female+singing/yt-5of6ffo6-Bw_205.mp4,adult+female+singing,3,1\n",
    )
    write(root, "validationSet.csv", "clapping/flickr-0-3-6-2.mp4,clapping,9,1\n")
    videos(
        root,
        "training/blocking/getty-karate-video-id635808620_4.mp4",
        "training/adult+female+singing/yt-5of6ffo6-Bw_205.mp4",
        "validation/clapping/flickr-0-3-6-2.mp4",
    )
    return root


def multi_moments(root: Path) -> Path:
    """Multi-Moments in Time: as many class numbers a line as there are actions."""
    write(root, "annotations/moments_categories.txt", "crafting,0\npaying,1\ncurling,2\nhopping,3\n")
    write(root, "annotations/trainingSet.csv", "0-3-6-2-9-1-2-6-14603629126_5.mp4,1,3\nyt-a_7.mp4,2\n")
    write(root, "annotations/validationSet.csv", "0-3-6-2-9-1-2-6-14603629127_5.mp4,0,1,2\n")
    videos(
        root / "videos",
        "0-3-6-2-9-1-2-6-14603629126_5.mp4",
        "yt-a_7.mp4",
        "0-3-6-2-9-1-2-6-14603629127_5.mp4",
    )
    return root


def hvu(root: Path) -> Path:
    """HVU: tags of several categories, times with a decimal."""
    tags = "Tag,Category\nswimming,action\ndiving,action\npool,scene\nwater,object\nrace,event\n"
    write(root, "HVU_Tags_Categories_V1.0.csv", tags)
    header = "Tags,youtube_id,time_start,time_end\n"
    write(
        root,
        "HVU_Train_V1.0.csv",
        header + "water|swimming|pool|diving,abcdefghijk,3.5,13.5\nwater,kjihgfedcba,0.0,10.0\n",
    )
    write(root, "HVU_Val_V1.0.csv", header + "diving|water,ABCDEFGHIJK,1.0,11.0\n")
    videos(
        root / "videos",
        *("abcdefghijk_000035_000135.mp4", "kjihgfedcba_000000_000100.mp4", "ABCDEFGHIJK_000010_000110.mp4"),
    )
    return root


def finegym(root: Path) -> Path:
    """FineGYM: the lists of both settings in one folder."""
    name = "(VT) round-off, flic-flac {} on, stretched salto backward off"
    for size in (99, 288):
        rows = [f"Clabel: {n:3}; set:  1; Glabel: {n + 1:3}; {name.format(f'with {n} turn')}" for n in range(3)]
        write(root, f"annotations/gym{size}_categories.txt", "\n".join(rows) + "\n")
    write(root, "annotations/gym99_train_element_v1.1.txt", "A0xAXXysHUo_E_002184_002237_A_0035_0036 2\n")
    write(root, "annotations/gym99_val_element.txt", "A0xAXXysHUo_E_002407_002435_A_0003_0005 0\n")
    write(root, "annotations/gym288_train_element_v1.1.txt", "A0xAXXysHUo_E_002184_002237_A_0035_0036 1\n")
    write(root, "annotations/gym288_val_element.txt", "A0xAXXysHUo_E_002407_002435_A_0003_0005 2\n")
    segments = {"A_0035_0036": {"stages": 1, "timestamps": [[35.1, 36.4]]}}
    event = {"event": 1, "segments": segments, "timestamps": [[2184.3, 2237.2]]}
    write(
        root,
        "annotations/finegym_annotation_info_v1.1.json",
        json.dumps({"A0xAXXysHUo": {"E_002184_002237": event, "E_002407_002435": {**event, "segments": None}}}),
    )
    clips = ("A0xAXXysHUo_E_002184_002237_A_0035_0036.mp4", "A0xAXXysHUo_E_002407_002435_A_0003_0005.mp4")
    videos(root / "subactions", *clips)
    return root


def activitynet(root: Path) -> Path:
    """ActivityNet 1.3: a database of untrimmed videos, one of them with two activities."""
    database = {
        "sJbyBXYFYsc": _anet("training", 8.0, ("Drinking coffee", 0.0, 4.0), ("Zumba", 4.0, 8.5)),
        "o1WPnnvs00I": _anet("validation", 5.0, ("Zumba", 1.0, 2.0)),
        "testing0000": _anet("testing", 3.0),
    }
    taxonomy = [{"parentName": "Root", "nodeName": "Zumba", "nodeId": 1, "parentId": 0}]
    value = {"version": "VERSION 1.3", "taxonomy": taxonomy, "database": database}
    write(root, "annotations/activity_net.v1-3.min.json", json.dumps(value))
    videos(root / "videos", "v_sJbyBXYFYsc.mp4", "v_o1WPnnvs00I.mp4")
    frames(root / "rawframes", "v_sJbyBXYFYsc", 8, "img_{:05}.jpg")
    frames(root / "rawframes", "v_o1WPnnvs00I", 10, "img_{:05}.jpg")
    return root


def _anet(subset: str, length: float, *activities: tuple[str, float, float]) -> dict[str, object]:
    told = [{"label": label, "segment": [start, end]} for label, start, end in activities]
    return {"subset": subset, "duration": length, "annotations": told, "resolution": "320x240"}


def diving48(root: Path) -> Path:
    """Diving48: JSON lists and a vocabulary of four words a class."""
    words = [["Back", "15som", "05Twis", "FREE"], ["Back", "15som", "15Twis", "FREE"]]
    write(root, "annotations/Diving48_vocab.json", json.dumps(words))
    train = [{"vid_name": "2x00lRzlTVQ_00000", "label": 1, "start_frame": 0, "end_frame": 162}]
    write(root, "annotations/Diving48_V2_train.json", json.dumps(train))
    test = [{"vid_name": "_8Vy3dlHg2w_00000", "label": 0, "start_frame": 0, "end_frame": 97}]
    write(root, "annotations/Diving48_V2_test.json", json.dumps(test))
    videos(root / "rgb", "2x00lRzlTVQ_00000.mp4", "_8Vy3dlHg2w_00000.mp4")
    return root


def video_folder(root: Path) -> Path:
    """Hugging Face's VideoFolder: a metadata file in the folder of each split, the same names in both."""
    write(root, "train/metadata.csv", 'file_name,label\n0001.mp4,"wave, slow"\nsub/0002.mp4,clap\n')
    write(root, "validation/metadata.jsonl", '{"file_name": "0001.mp4", "label": "clap"}\n')
    videos(root, "train/0001.mp4", "train/sub/0002.mp4", "validation/0001.mp4")
    return root


def class_folders(root: Path) -> Path:
    """Class folders, divided."""
    videos(root, "train/wave/a b.mp4", "train/clap/1.MP4", "val/clap/2.mp4")
    return root


def slowfast(root: Path) -> Path:
    """Lists as PySlowFast and VideoMAE write them."""
    write(root, "train.csv", "clips/wave (1)/a b.mp4 1\nclips/clap/c.mp4 0\n")
    write(root, "val.csv", "clips/clap/d.mp4, 0\n")
    videos(root, "clips/wave (1)/a b.mp4", "clips/clap/c.mp4", "clips/clap/d.mp4")
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "kinetics": kinetics,
    "something-v2": something_v2,
    "jester": jester,
    "moments": moments,
    "multi-moments": multi_moments,
    "hvu": hvu,
    "activitynet": activitynet,
    "diving48": diving48,
    "videofolder": video_folder,
    "folders": class_folders,
    "list": slowfast,
}
"""Layouts that are recognised by themselves, by the name of their format."""

ASKED = {"kinetics-cvdf": kinetics_cvdf, "something-v1": something_v1, "finegym": finegym}
"""Other layouts, by name."""

if __name__ == "__main__":  # the documents begin with such copies
    (LAYOUTS | ASKED)[sys.argv[1]](Path(sys.argv[2]))
