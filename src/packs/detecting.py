"""A detector of InsightFace (SCRFD) at one input size: what it finds, with less work around its network.

InsightFace works out a box and landmarks for every place of the photo before it looks at the scores.
"""

import cv2
import numpy as np
from insightface.model_zoo import SCRFD


def detect(
    detector: SCRFD, photo: np.ndarray, canvas: tuple[int, int], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """As `detector.detect(bgr, input_size=canvas, det_thresh=threshold)`: the same values, to the last bit.

    photo: uint8 `[H, W, 3]` RGB. canvas: width and height in pixels, multiples of 32, of a detector that
    takes any. Returns boxes with scores, float32 `[n, 5]` (left, top, right, bottom in pixels of the photo,
    score 0-1), and landmarks, float32 `[n, 5, 2]`, best score first.
    """
    framed, scale = _framed(photo, canvas)
    blob = cv2.dnn.blobFromImage(framed, 1 / detector.input_std, mean=(detector.input_mean,) * 3)
    session = detector._session_for_input_size(canvas)
    outputs = session.run(detector.output_names, {detector.input_name: blob})
    found, landmarks = [], []
    for level, stride in enumerate(detector._feat_stride_fpn):
        scores, sides, points = outputs[level :: detector.fmc]
        picked = (scores.ravel() >= threshold).nonzero()[0]
        if not len(picked):
            continue
        row, column = np.divmod(picked // detector._num_anchors, canvas[0] // stride)
        centre = np.stack([column, row], axis=1).astype(np.float32) * stride
        sides = sides.reshape(-1, 4)[picked] * stride
        corners = np.hstack([centre - sides[:, :2], centre + sides[:, 2:]])
        found.append(np.hstack([corners / scale, scores.reshape(-1, 1)[picked]]))
        points = points.reshape(-1, 5, 2)[picked] * stride
        landmarks.append((centre[:, None] + points) / scale)
    if not found:
        return np.empty((0, 5), np.float32), np.empty((0, 5, 2), np.float32)
    boxes = np.concatenate(found)
    order = np.argsort(-boxes[:, 4], kind="stable")
    keep = order[detector.nms(boxes[order])]
    return boxes[keep], np.concatenate(landmarks)[keep]


def _framed(photo: np.ndarray, canvas: tuple[int, int]) -> tuple[np.ndarray, float]:
    """The photo resized into the upper left of the canvas, black beside it, and how much it was resized."""
    height, width = photo.shape[:2]
    if height / width > canvas[1] / canvas[0]:
        size = int(canvas[1] / (height / width)), canvas[1]
    else:
        size = canvas[0], int(canvas[0] * (height / width))
    small = cv2.resize(photo, size)
    beside = canvas[1] - size[1], canvas[0] - size[0]
    framed = (
        cv2.copyMakeBorder(small, 0, beside[0], 0, beside[1], cv2.BORDER_CONSTANT) if any(beside) else small
    )
    return framed, size[1] / height
