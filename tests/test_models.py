"""Models are what one can keep: fitted once, saved, loaded without photos or pack, the same on any photo."""

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession

from src import models
from src.demo import mode
from src.evaluation import verification
from src.limits import NotPossible
from src.networks import maps, network
from src.networks.embedding import embed, to_images
from src.packs import export, pack
from tests import fake_gpu
from tests.fitted import QUICK, QUICK_PACK
from tests.networks.small import generated, small_network

ROOT = Path(__file__).parents[1]


def test_rows_are_called_what_the_report_calls_them(comparison, rows):
    assert list(rows) == [
        "demo_pack",
        "demo_pack + linear map",
        "demo_pack + PLDA",
        "demo_pack fine-tuned",
        "demo_pack fine-tuned + PLDA",
        "ResNet-50 before",
        "ResNet-50 fine-tuned",
        "ResNet-50 fine-tuned + posterior",
        "ResNet-50 + demo_pack",
        "demo_pack fine-tuned, open set",
    ]
    report = comparison.rows(*rows.values())
    assert list(report) == [f"demo · {name}" for name in rows]
    for embeddings in report.values():
        assert embeddings.dtype == np.float32
        assert len(embeddings) == len(comparison.crops)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)


def test_a_model_gives_what_the_report_was_made_from(comparison, rows):
    for name, model in rows.items():
        again = embed(comparison.crops, model)
        assert (again * comparison.embed(model)).sum(1).min() > 0.99999, name


def test_every_model_looks_at_the_mirror_image_too(comparison, rows):
    mirror = np.ascontiguousarray(comparison.crops[:, :, ::-1])
    for name, model in rows.items():
        assert (embed(mirror, model) * embed(comparison.crops, model)).sum(1).min() > 0.9999, name
    plain = models.Model("plain", {"plain": rows["demo_pack"].network}, mirrored=False)
    assert (embed(mirror, plain) * embed(comparison.crops, plain)).sum(1).min() < 0.99


def test_progress_is_judged_on_val(comparison, rows):
    said = comparison.progress(rows["ResNet-50 fine-tuned"], rows["demo_pack"])
    assert "than demo · demo_pack" in said and "demo · ResNet-50 fine-tuned is" in said
    val = comparison.faces["split"] == "val"
    shown = comparison.embed(rows["demo_pack"])[val]
    assert f"against {verification.auc(shown, comparison.faces['identity'][val]):.3f}" in said
    blind = replace(comparison, faces=comparison.faces.assign(split="train"))
    assert "nothing tells yet" in blind.progress(rows["ResNet-50 fine-tuned"], rows["demo_pack"])
    missing = models.Missing("ResNet-50 fine-tuned", NotPossible("too few"))
    assert comparison.progress(missing, rows["demo_pack"]).endswith("not possible: too few")


def test_an_open_set_row_needs_other_people(comparison, there, rows, tmp_path):
    lone = replace(there, faces=there.faces.assign(kind="smears"), folder=tmp_path / "lone")
    here = replace(comparison, folder=tmp_path)
    missing = models.open_set(here, rows["demo_pack"], rows["demo_pack fine-tuned"], lone)
    assert isinstance(missing, models.Missing) and "photos of other people" in str(missing.reason)


def test_rows_carry_how_much_their_photos_show_where_one_of_their_networks_can_tell(comparison, there, rows):
    scores = comparison.scores(there, *rows.values(), models.Missing("x", NotPossible("too few")))
    assert str(scores["demo · x"]) == "not possible: too few"
    plain, found = comparison.rows(*rows.values()), comparison.rows(*rows.values(), scores=scores)
    for row, embeddings in plain.items():
        lengths = np.linalg.norm(found[row], axis=1)
        np.testing.assert_allclose(found[row] / lengths[:, None], embeddings, atol=1e-6)
        score = scores[row]
        if isinstance(score, NotPossible):
            assert "does not tell val's photos from smears" in str(score)
            np.testing.assert_allclose(lengths, 1, rtol=1e-5)
        else:
            looks = comparison.looks(rows[row.removeprefix("demo · ")])
            np.testing.assert_allclose(lengths, score.lengths(looks), rtol=1e-5)
    assert scores["demo · demo_pack"].separation > 0.9
    assert scores["demo · ResNet-50 + demo_pack"].network in ("demo_pack", "ResNet-50 fine-tuned")


def test_onnx_runtime_makes_room_on_the_gpu_before_training(comparison, monkeypatch, tmp_path):
    happened = []
    monkeypatch.setattr(pack.Pack, "release", lambda self: happened.append("released"))

    def trained(start):
        happened.append("trained")
        return network.save(start, tmp_path / "x")

    monkeypatch.setattr(models, "cached", lambda path, function, *inputs: function(*inputs))
    replace(comparison, folder=tmp_path).checkpoint("x", trained, network.resnet50("none", 8, 32))
    assert happened == ["released", "trained"]


@pytest.mark.parametrize("providers", [("CPUExecutionProvider",), ("CUDAExecutionProvider",)])
def test_the_packs_recogniser_runs_where_there_is_a_gpu(comparison, rows, tmp_path, monkeypatch, providers):
    expected = comparison.embed(rows["demo_pack"])
    fake_gpu.pretend(monkeypatch)
    there = replace(comparison, pack=replace(comparison.pack, providers=providers), folder=tmp_path)
    called, recognise = [], pack.Pack.recognise

    def noted(self, crops):
        called.append(len(crops))
        return recognise(self, crops)

    monkeypatch.setattr(pack.Pack, "recognise", noted)
    found = there.embed(rows["demo_pack"])
    assert bool(called) == (providers[0] == "CUDAExecutionProvider")
    assert (found * expected).sum(1).min() > 0.9999


def test_a_map_works_in_single_precision_whatever_the_networks_do(rows):
    """A posterior that is rounded to half precision ties."""
    images = to_images(torch.from_numpy(generated(range(3), 2)))
    for name in ("demo_pack + PLDA", "ResNet-50 fine-tuned + posterior", "ResNet-50 + demo_pack"):
        model, given = copy.deepcopy(rows[name]), list[torch.Tensor]()
        model.map.register_forward_pre_hook(lambda _, parts, given=given: given.extend(parts))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            assert model(images).dtype == torch.float32
        assert {part.dtype for part in given} == {torch.float32}


def test_what_was_embedded_when_faces_were_chosen_is_not_embedded_again(comparison, rows, tmp_path):
    known = comparison.embed(rows["demo_pack"])
    order = np.random.default_rng(0).permutation(len(known))
    every = np.empty_like(known)
    every[order] = known
    faces = comparison.faces.assign(candidate=order)
    again = replace(comparison, faces=faces, every=every, folder=tmp_path, crops=comparison.crops[:0])
    assert np.array_equal(again.embed(rows["demo_pack"]), known)


def test_a_row_that_is_no_longer_possible_leaves_no_model_of_an_earlier_run(comparison, rows, tmp_path):
    here = replace(comparison, folder=tmp_path)
    assert isinstance(models.linear_map(here, rows["demo_pack"]), models.Model)
    kept = tmp_path / "models" / "demo_pack-linear-map"
    assert kept.is_dir()
    too_few = replace(here, faces=comparison.faces.assign(split="test_unseen"))
    assert isinstance(models.linear_map(too_few, rows["demo_pack"]), models.Missing)
    assert not kept.exists() and not list(tmp_path.glob("models/*.json"))


def test_a_closed_list_is_named(comparison, rows):
    closed = replace(comparison, unknown=0.0)
    made = models.plda(closed, rows["demo_pack"])
    assert made.name == "demo_pack + PLDA, closed list"
    assert models.posterior(closed, rows["ResNet-50 fine-tuned"]).name.endswith("posterior, closed list")
    assert models.fused(closed, rows["demo_pack"], rows["ResNet-50 fine-tuned"]).name.endswith(
        ", closed list"
    )
    np.testing.assert_allclose((closed.embed(made)[:, :6] ** 2).sum(1), 1, rtol=1e-5)
    assert (comparison.embed(rows["demo_pack + PLDA"])[:, :6] ** 2).sum(1).min() < 0.99


def test_the_packs_resnet50_is_fine_tuned_once(comparison, iresnet50, tmp_path, capsys):
    """From "pack", the study's model is the fine-tuned pack: one network, two rows, and a note."""
    folder = tmp_path / "r50"
    folder.mkdir()
    shutil.copy(mode.PACK / "det_demo.onnx", folder)
    shutil.copy(iresnet50, folder)
    ours = replace(comparison, pack=pack.load(folder), folder=tmp_path / "out")
    before = models.resnet50(ours, "pack")
    baseline = models.frozen(ours)
    np.testing.assert_allclose(ours.embed(before), ours.embed(baseline), atol=1e-6)
    tuned = models.tuned_pack(ours, baseline, QUICK_PACK)
    twin = models.fine_tuned_pack(ours, baseline, tuned)
    capsys.readouterr()
    resnet50 = models.fine_tuned_resnet50(ours, before, QUICK, teacher=tuned)
    said = capsys.readouterr().out
    assert "computed" not in said.replace("computed ResNet-50-fine-tuned ", "")
    assert "the same as demo · r50 fine-tuned" in said
    assert resnet50.name == "ResNet-50 fine-tuned"
    assert np.array_equal(ours.embed(resnet50), ours.embed(twin))
    assert list(ours.notes(before, twin, resnet50)) == ["demo · ResNet-50 fine-tuned"]


def test_a_pack_whose_recogniser_is_no_resnet50_is_no_start(comparison):
    with pytest.raises(ValueError, match=r'rec_demo\.onnx of demo_pack is no ResNet-50 .* "imagenet"'):
        models.resnet50(comparison, "pack")


LOADER = """
import sys
sys.modules.update(dict.fromkeys(["insightface", "onnxruntime"]))
import numpy as np
from pathlib import Path
from src import models
from src.networks.embedding import embed, to_images
for folder in sorted(Path(sys.argv[1]).iterdir()):
    if folder.is_dir() and folder.name != ".locks":
        model = models.load(folder)
        np.save(Path(sys.argv[2]) / f"{model.name}.npy", embed(np.load(sys.argv[3]), model))
"""


def test_models_loaded_elsewhere_give_the_same_on_photos_they_never_saw(comparison, rows, tmp_path):
    """In another process, moved away, without InsightFace, pack or training photos."""
    (comparison.folder / "models").rename(tmp_path / "models")
    new = generated(range(100, 106), 2, start=9)
    np.save(tmp_path / "new.npy", new)
    arguments = [str(tmp_path / name) for name in ("models", ".", "new.npy")]
    subprocess.run([sys.executable, "-c", LOADER, *arguments], check=True, cwd=ROOT)
    (tmp_path / "models").rename(comparison.folder / "models")
    for name, model in rows.items():
        if name != "ResNet-50 before":
            given = np.load(tmp_path / f"{name}.npy")
            assert (given * embed(new, model)).sum(1).min() > 0.99999, name


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.json is missing"):
        models.load(tmp_path)
    record = {"name": "x", "networks": [], "map": "os.system"}
    (tmp_path / "model.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "map.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(ValueError, match=r"no map of the kind 'os\.system'"):
        models.load(tmp_path)


def test_networks_look_once_and_notes_retrain_nothing(comparison, rows, capsys):
    """A new sentence in a table is no reason to fit, train or embed again; another split is."""
    noted = replace(comparison, faces=comparison.faces.assign(split_note="an afterthought"))
    baseline = models.frozen(noted)
    models.tuned_pack(noted, baseline, QUICK_PACK)
    noted.embed(models.plda(noted, baseline))
    assert "computed" not in capsys.readouterr().out
    other = replace(comparison, faces=comparison.faces.assign(split="train"))
    models.plda(other, baseline)
    assert "computed" in capsys.readouterr().out


def test_an_exported_model_looks_at_the_mirror_image_and_asks_who_it_is(comparison, tmp_path):
    """As a file for InsightFace, which may hold nothing but the graph."""
    part = small_network().eval()
    embeddings = embed(comparison.crops, part, mirrored=True)
    for fitted in (None, maps.fit_posterior(embeddings, comparison.faces)):
        model = models.Model("small", {"small": part}, fitted).eval()
        file = export.onnx(model, tmp_path / "small.onnx")
        session = InferenceSession(str(file), providers=["CPUExecutionProvider"])
        mirror = np.ascontiguousarray(comparison.crops[:, :, ::-1])
        images = to_images(
            torch.from_numpy(np.stack([comparison.crops, mirror]))[:, :4].flatten(0, 1)
        ).numpy()
        (given,) = session.run(None, {"input": images})
        assert (given[:4] * given[4:]).sum(1).min() > 0.9999
        assert (given[:4] * embed(comparison.crops[:4], model)).sum(1).min() > 0.9999
