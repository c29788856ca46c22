"""Names of photos in one folder say who is shown, or nothing."""

import pytest

from src.photos import filenames


@pytest.mark.parametrize(
    ("stems", "people"),
    [
        (["001_cam1_1", "001_frontal", "002_cam8", "002_L1"], ["001", "001", "002", "002"]),  # SCface
        (["5_cam1_1", "5_cam2_1", "61_cam1_7", "61_cam9_2"], ["5", "5", "61", "61"]),  # SurvFace
        (["00001_930831_fa_a", "00001_940928_hl", "00002_930831_fa", "00002_930831_fb"],
         ["00001", "00001", "00002", "00002"]),  # FERET
        (["00001fa010_930831", "00001fb010_930831", "00002fa010_930831", "00002qr010_940928"],
         ["00001", "00001", "00002", "00002"]),
        (["0002_c1s1_000451_03", "0002_c2s1_000453_01", "0007_c1s2_1_01", "0007_c3s2_2_01"],
         ["0002", "0002", "0007", "0007"]),
        (["George_W_Bush_0001", "George_W_Bush_0002", "Jo_Li_0001", "Jo_Li_0002"],
         ["George_W_Bush", "George_W_Bush", "Jo_Li", "Jo_Li"]),
        (["anna (1)", "anna", "ben (2)", "ben"], ["anna", "anna", "ben", "ben"]),
        (["anna1", "anna2", "ben1", "ben12"], ["anna", "anna", "ben", "ben"]),
        (["person01_1", "person01_2", "person02_1", "person02_2"],
         ["person01", "person01", "person02", "person02"]),
        (["0_MariaCallas_35_f", "1_MariaCallas_36_f", "2_GlennClose_62_f", "3_GlennClose_59_f"],
         ["MariaCallas", "MariaCallas", "GlennClose", "GlennClose"]),  # AgeDB
        (["subject01.glasses", "subject01.happy", "subject02.sad", "subject02.glasses"],
         ["subject01", "subject01", "subject02", "subject02"]),  # Yale
        (["cam1_anna_001", "cam2_anna_002", "cam1_ben_001", "cam2_ben_002"], ["anna", "anna", "ben", "ben"]),
        (["李明_1", "李明_2", "王芳_1", "王芳_2"], ["李明", "李明", "王芳", "王芳"]),
    ],
)  # fmt: skip
def test_names_that_start_with_the_person(stems, people):
    assert filenames.people(stems) == (people, "")


@pytest.mark.parametrize(
    "stems",
    [
        ["000001", "000002", "000003"],  # CelebA
        ["IMG_0001", "IMG_0002", "DSC_0001", "DSC_0002"],
        ["IMG_20240101_120000", "PXL_20240101_120001"],
        ["25_0_1_20170109142408075", "25_1_3_20170116174525125", "26_0_1_20170109"],  # UTKFace
        ["000123_0", "000123_1", "000124_0", "000124_1"],  # frame and face
        ["7b128be394", "8b128be394", "abcdef12"],
        ["WhatsApp Image 2020-01-01 at 12.00.00", "WhatsApp Image 2020-01-01 at 12.00.03"],
        ["person01", "person02", "person03"],
        ["anna", "ben", "carl"],
        ["anna_1", "anna_2", "ben_1", "0001"],
        ["beach", "party"],
        ["20240101_cam1", "20240101_cam2", "20240102_cam1", "20240102_cam2"],
        ["20240101_cam1_01", "20240101_cam2_01", "20240102_cam1_01", "20240102_cam2_01"],
        [],
    ],
)  # fmt: skip
def test_names_that_do_not_say_who_is_shown(stems):
    found, why = filenames.people(stems)
    assert found == [""] * len(stems) and (why or not stems)


def test_bare_numbers_are_person_and_photo_in_a_gallery_only():
    stems = ["1_1", "1_2", "22_1", "22_2"]
    assert filenames.people(stems, gallery=True) == (["1", "1", "22", "22"], "")
    assert filenames.people(stems)[1]


def test_a_few_names_of_another_kind_do_not_matter():
    stems = [f"{i:03d}_cam{c}_{d}" for i in range(10) for c in range(1, 6) for d in (1, 2, 3)]
    found, why = filenames.people([*stems, "overview"])
    assert not why and found[-1] == "" and len(set(found)) == 11
