"""A photo is the same each time it is drawn, and the truth about it follows the head."""

import numpy as np

from src.demo import drawing, people


def test_a_photo_is_rgb_bytes_with_its_landmarks_in_pixels():
    who, look = people.person(3), people.view(np.random.default_rng(1))
    photo, points = drawing.draw(who, look, 120)
    assert photo.shape == (120, 120, 3) and photo.dtype == np.uint8
    assert points.shape == (5, 2)
    np.testing.assert_allclose(points, drawing.landmarks(who, look) * 120 - 0.5)
    again, _ = drawing.draw(who, look, 120)
    np.testing.assert_array_equal(photo, again)


def test_the_eyes_are_drawn_where_the_landmarks_are():
    """Pupils are dark: around an eye's landmark the photo is darker than on the cheek below."""
    darker = []
    for seed in range(12):
        who, look = people.person(seed), people.view(np.random.default_rng(seed))
        photo, points = drawing.draw(who, look, 220)
        for x, y in points[:2].round().astype(int):
            eye, cheek = photo[y - 1 : y + 2, x - 1 : x + 2], photo[y + 22 : y + 25, x - 1 : x + 2]
            darker.append(eye.mean() < cheek.mean())
    assert np.mean(darker) > 0.85


def test_truth_follows_the_head():
    who = people.person(3)
    rng = np.random.default_rng(0)
    looks = [people.view(rng) for _ in range(20)]
    for look in looks:
        eye, other_eye, nose, mouth, other_mouth = drawing.landmarks(who, look)
        assert eye[0] < other_eye[0]
        assert mouth[0] < other_mouth[0]
        assert eye[1] < nose[1] < mouth[1]
        left, top, right, bottom = drawing.face_box(who, look)
        assert left < eye[0] < other_eye[0] < right
        assert top < eye[1] < mouth[1] < bottom
    turned = max(looks, key=lambda look: look.yaw)
    away = min(looks, key=lambda look: look.yaw)

    def nose_offset(look):
        points = drawing.landmarks(who, look)
        return points[2, 0] - points[:2, 0].mean()

    assert nose_offset(turned) > nose_offset(away)
