"""Annotations of every data set, in their published form, become lists of the videos that are there."""

from pathlib import Path

import pytest

from iwin.errors import DataError
from iwin.prepare.formats import FORMATS, Choice, read_annotations
from iwin.prepare.formats.library import Library
from iwin.prepare.formats.rows import numbered
from iwin.prepare.formats.writing import Split, resolve
from tests.prepare import layouts
from tests.prepare.layouts import LAYOUTS


def lists(
    root: Path,
    name: str | None = None,
    *,
    sources: tuple[str, ...] = ("",),
    videos: str = "",
    frames: bool = False,
    choice: Choice | None = None,
) -> tuple[dict[str, list[str]], tuple[str, ...] | None, dict[str, Split]]:
    """The lines of each list, the classes, and what became of the rows."""
    _, reading = read_annotations([root / source for source in sources], name=name, choice=choice)
    reading = numbered(reading)
    splits = resolve(reading, Library(root / videos), frames=frames)
    return {name: [entry.line for entry in split.entries] for name, split in splits.items()}, reading.classes, splits


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_recognised_as_what_it_is(name: str, tmp_path: Path) -> None:
    found, _ = read_annotations([LAYOUTS[name](tmp_path)])
    assert found.name == name


def test_every_format_has_a_name_of_its_own() -> None:
    names = [name for one in FORMATS for name in (one.name, *one.aliases)]
    assert len(set(names)) == len(names)


def test_ucf101(tmp_path: Path) -> None:
    found, classes, _ = lists(layouts.ucf101(tmp_path))
    assert classes == ("ApplyEyeMakeup", "ApplyLipstick", "HandstandPushups")
    assert found["train"] == [
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 0",
        "UCF-101/ApplyLipstick/v_ApplyLipstick_g08_c01.avi 1",
        "UCF-101/HandstandPushups/v_HandstandPushups_g08_c01.avi 2",  # HandStandPushups in the list
    ]
    assert [line.partition("_g")[2] for line in found["val"]] == ["01_c01.avi 0", "01_c01.avi 1", "01_c01.avi 2"]
    second, _, _ = lists(tmp_path, choice=Choice(fold=2))
    assert set(second["train"]) == set(found["val"])
    with pytest.raises(DataError, match=r"no trainlist03\.txt"):
        lists(tmp_path, choice=Choice(fold=3))


def test_ucf101_numbers_and_names_must_agree(tmp_path: Path) -> None:
    layouts.ucf101(tmp_path)
    layouts.write(tmp_path, "ucfTrainTestlist/trainlist01.txt", "ApplyLipstick/v_ApplyLipstick_g08_c01.avi 1\n")
    with pytest.raises(DataError, match=r"trainlist01\.txt:1: classInd\.txt numbers ApplyLipstick otherwise"):
        lists(tmp_path)
    (tmp_path / "ucfTrainTestlist" / "trainlist01.txt").write_text("Archery/v_Archery_g08_c01.avi 3\n")
    with pytest.raises(DataError, match="'Archery' is none of the 3 classes"):
        lists(tmp_path)


def test_hmdb51(tmp_path: Path) -> None:
    found, classes, _ = lists(layouts.hmdb51(tmp_path))
    assert classes == ("brush_hair", "clap")
    assert found == {
        "train": [
            "hmdb51_org/brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi 0",
            "hmdb51_org/clap/(Rad)Schlag_die_Bank!_clap_f_cm_np1_le_med_0.avi 1",
        ],
        "val": [
            "hmdb51_org/brush_hair/#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi 0",
            "hmdb51_org/clap/A_clap_u_nm_np1_fr_med_1.avi 1",
        ],
    }
    flat = tmp_path / "hmdb51_org" / "brush_hair"
    found, _, _ = lists(tmp_path, videos="hmdb51_org/brush_hair")  # the videos of one class, without its folder
    assert found["val"] == ["./#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi 0"]
    assert (flat / found["val"][0].partition(" ")[0]).is_file()


def test_kinetics_in_class_folders(tmp_path: Path) -> None:
    found, classes, splits = lists(layouts.kinetics(tmp_path))
    assert classes == ("air drumming", "massaging person's head", "petting animal (not cat)")
    assert found == {
        "train": [
            "train/petting_animal_not_cat/-0j2Wd2AQXs_000005_000015.mp4 2",
            "train/massaging_persons_head/_qMLaSqyXBs_000000_000010.mp4 1",
        ],
        "val": ["val/air drumming/_dbcJuKJQNs_000040_000050.mp4 0"],
        "test": [],
    }
    assert splits["train"].repeated == 1
    assert splits["val"].missing == ["air drumming/gone00000_x_000001_000011.mp4"]
    assert splits["test"].unlabelled == 1


def test_kinetics_as_the_cvdf_packs_it(tmp_path: Path) -> None:
    found, _, _ = lists(layouts.kinetics_cvdf(tmp_path))
    assert found == {
        "train": ["train/AbCdEfGhIjK_000000_000010.mp4 1", "train/aBcDeFgHiJk_000000_000010.mp4 0"],
        "val": ["val/_dbcJuKJQNs_000040_000050.mp4 1"],
    }


def test_ids_that_differ_in_capitals_are_not_the_same(tmp_path: Path) -> None:
    layouts.kinetics_cvdf(tmp_path)
    (tmp_path / "train" / "AbCdEfGhIjK_000000_000010.mp4").unlink()
    found, _, splits = lists(tmp_path)
    assert found["train"] == ["train/aBcDeFgHiJk_000000_000010.mp4 0"]
    assert splits["train"].missing == ["zumba/AbCdEfGhIjK_000000_000010.mp4"]


def test_a_clip_in_the_folder_of_another_class_is_not_taken(tmp_path: Path) -> None:
    header = layouts.KINETICS_HEADER
    layouts.write(tmp_path, "train.csv", header + "zumba,AbCdEfGhIjK,0,10,train,0\nyoga,AbCdEfGhIjK,0,10,train,0\n")
    layouts.videos(tmp_path, "train/yoga/AbCdEfGhIjK_000000_000010.mp4")
    found, _, splits = lists(tmp_path)
    assert found == {"train": ["train/yoga/AbCdEfGhIjK_000000_000010.mp4 0"]}
    assert len(splits["train"].missing) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.txt", '"air drumming",_dbcJuKJQNs,40,50,train\n'),
        ("train.csv", "label,youtube_id,time_start,time_end,split\nair drumming,_dbcJuKJQNs,40.0,50.0,train\n"),
        ("train.json", '{"_dbcJuKJQNs": {"annotations": {"label": "air drumming", "segment": [40.0, 50.0]}, '
                       '"duration": 10.0, "subset": "train", "url": "https://www.youtube.com/watch?v=_dbcJuKJQNs"}}'),
        ("validate.csv", "label,youtube_id,time_start,time_end,split\nair drumming,_dbcJuKJQNs,40,50,validate\n"),
    ],
)  # fmt: skip
def test_other_forms_of_kinetics(name: str, text: str, tmp_path: Path) -> None:
    layouts.write(tmp_path, name, text)
    layouts.videos(tmp_path, "air_drumming/_dbcJuKJQNs_000040_000050.mp4")
    found, _, _ = lists(tmp_path)
    assert found == {"val" if "valid" in name else "train": ["air_drumming/_dbcJuKJQNs_000040_000050.mp4 0"]}


def test_something_v2(tmp_path: Path) -> None:
    found, classes, _ = lists(layouts.something_v2(tmp_path))
    assert classes is not None
    assert classes[2] == "Holding something next to something"
    folder = "20bn-something-something-v2"
    assert found == {
        "train": [f"{folder}/78687.webm 2", f"{folder}/42326.webm 1"],
        "val": [f"{folder}/74225.webm 0"],
        "test": [f"{folder}/1420.webm 2"],
    }
    one, _, _ = lists(tmp_path, sources=("labels/validation.json",), videos=folder)
    assert one == {"val": ["74225.webm 0"]}


def test_something_v2_without_answers_or_labels(tmp_path: Path) -> None:
    layouts.something_v2(tmp_path)
    (tmp_path / "labels" / "test-answers.csv").unlink()
    found, _, splits = lists(tmp_path)
    assert found["test"] == []
    assert splits["test"].unlabelled == 1
    (tmp_path / "labels" / "labels.json").unlink()
    with pytest.raises(DataError, match=r"needs the file that numbers the labels \(labels\.json\)"):
        lists(tmp_path)


def test_frame_folders_of_something_v1_and_jester(tmp_path: Path) -> None:
    found, _, _ = lists(layouts.something_v1(tmp_path / "a"), frames=True)
    folder = "20bn-something-something-v1"
    assert found == {"train": [f"{folder}/100218 5 1"], "val": [f"{folder}/26 3 0"], "test": []}
    found, classes, splits = lists(layouts.jester(tmp_path / "b"), frames=True)
    assert classes == ("Swiping Left", "Doing other things", "Drumming Fingers")
    assert found == {
        "train": ["20bn-jester-v1/34870 4 2", "20bn-jester-v1/56557 3 1"],
        "val": ["20bn-jester-v1/9223 2 0"],
        "test": [],
    }
    assert splits["test"].unlabelled == 1
    (labels,) = (tmp_path / "b" / "labels").glob("*labels.csv")
    labels.rename(labels.with_name("jester-v1-label.csv"))
    assert lists(tmp_path / "b", frames=True)[1] == classes


def test_moments_in_time(tmp_path: Path) -> None:
    found, classes, _ = lists(layouts.moments(tmp_path / "one"))
    assert classes == ("clapping", "adult+female+singing", "blocking")
    assert found["train"] == [
        "training/blocking/getty-karate-video-id635808620_4.mp4 2",
        "training/adult+female+singing/yt-5of6ffo6-Bw_205.mp4 1",
    ]
    found, _, _ = lists(layouts.multi_moments(tmp_path / "many"))
    assert found == {
        "train": ["videos/0-3-6-2-9-1-2-6-14603629126_5.mp4 1 3", "videos/yt-a_7.mp4 2"],
        "val": ["videos/0-3-6-2-9-1-2-6-14603629127_5.mp4 0 1 2"],
    }


def test_hvu(tmp_path: Path) -> None:
    found, classes, splits = lists(layouts.hvu(tmp_path))
    assert classes == ("diving", "swimming")
    assert found == {
        "train": ["videos/abcdefghijk_000035_000135.mp4 0 1"],
        "val": ["videos/ABCDEFGHIJK_000010_000110.mp4 0"],
    }
    assert splits["train"].unlabelled == 1
    found, classes, _ = lists(tmp_path, choice=Choice(tags=()))
    assert classes == ("diving", "swimming", "race", "water", "pool")
    assert found["train"][0].endswith(".mp4 0 1 3 4")
    with pytest.raises(DataError, match="no such category of tags"):
        lists(tmp_path, choice=Choice(tags=("actions",)))


def test_hvu_in_the_form_of_mmaction2(tmp_path: Path) -> None:
    layouts.write(tmp_path, "hvu_tags.json", '{"action": ["diving", "swimming"], "scene": ["pool"]}')
    layouts.write(tmp_path, "hvu_val_video.json", '[{"filename": "a.mp4", "label": {"scene": [0], "action": [1]}}]')
    layouts.videos(tmp_path, "a.mp4")
    found, _, _ = lists(tmp_path)
    assert found == {"val": ["a.mp4 1"]}


def test_finegym_asks_which_of_its_settings_is_meant(tmp_path: Path) -> None:
    layouts.finegym(tmp_path)
    with pytest.raises(DataError, match="--format gym99 or --format gym288"):
        lists(tmp_path)
    found, classes, _ = lists(tmp_path, "gym288")
    assert classes is not None
    assert classes[1] == "(VT) round-off, flic-flac with 1 turn on, stretched salto backward off"
    assert found == {
        "train": ["subactions/A0xAXXysHUo_E_002184_002237_A_0035_0036.mp4 1"],
        "val": ["subactions/A0xAXXysHUo_E_002407_002435_A_0003_0005.mp4 2"],
    }


def test_activitynet(tmp_path: Path) -> None:
    found, classes, _ = lists(layouts.activitynet(tmp_path))
    assert classes == ("Drinking coffee", "Zumba")
    assert found == {"train": ["videos/v_sJbyBXYFYsc.mp4 0"], "val": ["videos/v_o1WPnnvs00I.mp4 1"], "test": []}
    segments, _, _ = lists(tmp_path, frames=True, choice=Choice(segments=True))
    assert segments == {
        "train": ["rawframes/v_sJbyBXYFYsc 0 4 0", "rawframes/v_sJbyBXYFYsc 4 4 1"],
        "val": ["rawframes/v_o1WPnnvs00I 2 2 1"],
        "test": [],
    }


def test_segments_of_no_length_are_left_out(tmp_path: Path) -> None:
    layouts.activitynet(tmp_path)
    path = tmp_path / "annotations" / "activity_net.v1-3.min.json"
    path.write_text(path.read_text().replace("[1.0, 2.0]", "[2.0, 1.0]"))
    _, reading = read_annotations([tmp_path], choice=Choice(segments=True))
    assert "1 segments that end before they start are left out" in reading.notes
    found, _, _ = lists(tmp_path, frames=True, choice=Choice(segments=True))
    assert "val" not in found


def test_diving48(tmp_path: Path) -> None:
    found, classes, _ = lists(layouts.diving48(tmp_path))
    assert classes == ("Back 15som 05Twis FREE", "Back 15som 15Twis FREE")
    assert found == {"train": ["rgb/2x00lRzlTVQ_00000.mp4 1"], "val": ["rgb/_8Vy3dlHg2w_00000.mp4 0"]}
    layouts.write(tmp_path, "annotations/Diving48_train.json", '[{"vid_name": "a", "label": 1}]')
    with pytest.raises(DataError, match="several versions"):
        lists(tmp_path)


def test_video_folder(tmp_path: Path) -> None:
    found, classes, _ = lists(layouts.video_folder(tmp_path))
    assert classes == ("clap", "wave, slow")
    assert found == {"train": ["train/0001.mp4 1", "train/sub/0002.mp4 0"], "val": ["validation/0001.mp4 0"]}
    (tmp_path / "validation" / "0001.mp4").unlink()
    found, _, splits = lists(tmp_path)
    assert found["val"] == []  # and not the file of the same name in train/
    assert splits["val"].missing == ["validation/0001.mp4"]


def test_class_folders(tmp_path: Path) -> None:
    found, classes, _ = lists(layouts.class_folders(tmp_path / "videos"))
    assert classes == ("clap", "wave")
    assert found == {"train": ["train/clap/1.MP4 0", "train/wave/a b.mp4 1"], "val": ["val/clap/2.mp4 0"]}
    layouts.frames(tmp_path / "frames", "wave/clip 5", 3)
    layouts.frames(tmp_path / "frames", "clap/clip 6", 2)
    found, _, _ = lists(tmp_path / "frames", frames=True)
    assert found == {"": ["clap/clip 6 2 0", "wave/clip 5 3 1"]}
