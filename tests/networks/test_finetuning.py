import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_metric_learning import losses as metric_losses
from tqdm.auto import tqdm

from src.networks import embedding, finetuning, loading, losses, network, stepping, weights
from src.networks.network import FaceNetwork
from tests import fake_gpu
from tests.networks.small import ORIGIN, four_people, interrupted, small_network

QUICK = finetuning.Settings(epochs=3, batch_size=8, per_identity=2, seed=3, warmup=0.0)


@pytest.fixture(scope="module")
def photos():
    return four_people()


@pytest.fixture
def train(photos, tmp_path):
    """Trains on the photos, or on what is given instead; returns the checkpoint's folder."""

    def trained(start=None, settings=QUICK, teacher=None, crops=photos[0], faces=photos[1], **options):
        options.setdefault("workspace", tmp_path / "training")
        start = small_network() if start is None else start
        return finetuning.train(start, crops, faces, settings, teacher, **options)

    return trained


def record_of(folder):
    return json.loads((folder / network.RECORD_FILE).read_text(encoding="utf-8"))


def history_of(folder):
    return pd.DataFrame(record_of(folder)["history"])


def test_training_learns_who_is_who(train):
    settings = dataclasses.replace(QUICK, epochs=25, learning_rate=1e-2, averaging=0.9)
    history = history_of(train(settings=settings))
    assert history["loss"].iloc[:3].mean() > history["loss"].iloc[-3:].mean()
    assert history["accuracy"].iloc[-1] > 0.8
    assert history["val_auc"].max() > 0.9


def test_resnet50_goes_through_training_and_back(photos, train):
    start = network.resnet50("none", embedding_size=8, input_size=32)
    before = embedding.embed(photos[0], start)
    settings = dataclasses.replace(QUICK, epochs=1)
    folder = train(start, settings)
    record = record_of(folder)
    assert record["settings"] == dataclasses.asdict(settings)
    assert record["trained_on"]["people"] == ["ann", "bob", "cid", "dee"]
    assert record["trained_on"]["photos"] == 24
    assert np.array_equal(embedding.embed(photos[0], start), before), "the given network is left as it was"
    assert not np.allclose(embedding.embed(photos[0], network.load(folder)), before)


def triplet(people, embedding_size, margin, scale):
    return metric_losses.TripletMarginLoss(margin=margin)


def arcface(people, embedding_size, margin, scale):
    return metric_losses.ArcFaceLoss(people, embedding_size, margin=np.degrees(margin), scale=scale)


def sub_centres(people, embedding_size, margin, scale):
    return metric_losses.SubCenterArcFaceLoss(
        num_classes=people, embedding_size=embedding_size, margin=np.degrees(margin), scale=scale
    )


def proxies(people, embedding_size, margin, scale):
    return metric_losses.ProxyAnchorLoss(people, embedding_size, margin=margin, alpha=scale)


@pytest.mark.parametrize("loss", [losses.cosface, arcface, sub_centres, proxies, triplet])
def test_any_loss_of_metric_learning_trains(train, loss):
    """With class weights and without, with several to a class, and with the margin that each understands."""
    settings = dataclasses.replace(QUICK, epochs=12, learning_rate=1e-2, averaging=0.9)
    history = history_of(train(settings=settings, loss=loss))
    assert history["val_auc"].max() > 0.8
    assert history["margin"].iloc[0] < history["margin"].iloc[-1]


def test_an_interrupted_training_comes_to_the_same_result(train, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, "PAUSE", 0.0)
    teacher = np.random.default_rng(1).normal(size=(32, 5)).astype(np.float32)
    at_once = train(teacher=teacher, workspace=tmp_path / "at once")
    with interrupted(monkeypatch, epochs=2):
        train(teacher=teacher, workspace=tmp_path / "in parts")
    in_parts = train(teacher=teacher, workspace=tmp_path / "in parts")
    first, second = ((folder / network.WEIGHTS_FILE).read_bytes() for folder in (at_once, in_parts))
    assert first == second
    assert history_of(in_parts).drop(columns="seconds").equals(history_of(at_once).drop(columns="seconds"))


def test_a_loss_that_is_not_finite_stops_with_a_sentence_and_keeps_the_best(train, tmp_path, monkeypatch):
    broken = small_network()
    with torch.no_grad():
        broken.head.load_state_dict({k: v * torch.nan for k, v in broken.head.state_dict().items()})
    with pytest.raises(
        FloatingPointError, match=r"loss became nan in epoch 1: nothing is kept; try a learning_rate"
    ):
        train(broken, workspace=tmp_path / "broken")

    augment = finetuning.augment
    calls: Counter[str] = Counter()

    def spoilt(*args):
        calls["batches"] += 1
        return augment(*args) * (torch.nan if calls["batches"] == 6 else 1)  # the last batch of epoch 2

    monkeypatch.setattr(finetuning, "augment", spoilt)
    with pytest.raises(FloatingPointError, match="in epoch 2: the best of the 1 epochs before is in"):
        train(workspace=tmp_path / "spoilt")
    assert len(history_of(tmp_path / "spoilt" / "artefact")) == 1


def test_weights_and_record_stay_together_where_a_resumed_run_differs(train, tmp_path, monkeypatch):
    """Interrupted after an epoch better than any that the resumed run comes to: it is not kept."""
    folder = tmp_path / "training"
    settings = dataclasses.replace(QUICK, epochs=4)
    epoch, keep = finetuning._epoch, finetuning.Learner.keep
    aucs = {False: [0.5, 0.9, 0.99], True: [0.4, 0.3, 0.2]}  # in the first run, and in the resumed one
    resumed = False
    averages: dict[int, dict[str, torch.Tensor]] = {}

    def told(learner, *rest):
        line = epoch(learner, *rest)
        number = line["epoch"] - (2 if resumed else 1)
        line["val_auc"] = aucs[resumed][number]
        averages[line["epoch"]] = {k: v.clone() for k, v in learner.averaged.state_dict().items()}
        if not resumed and line["epoch"] == 3:
            raise KeyboardInterrupt
        return line

    monkeypatch.setattr(finetuning, "_epoch", told)
    monkeypatch.setattr(finetuning, "PAUSE", 0.0)
    monkeypatch.setattr(
        finetuning.Learner, "keep", lambda self, *a: len(a[1]) == 1 and keep(self, *a)
    )  # the last state kept is that after the first epoch
    with pytest.raises(KeyboardInterrupt):
        train(settings=settings)
    resumed = True
    record = record_of(train(settings=settings))
    assert [line["val_auc"] for line in record["history"]] == [0.5, 0.4, 0.3, 0.2]
    assert record["epoch"] == 1
    kept = weights.read(folder / "artefact" / network.WEIGHTS_FILE)
    assert all(torch.equal(kept[name], averages[1][name]) for name in kept)


def test_without_validation_the_last_epoch_is_kept(photos, train):
    assert record_of(train(faces=photos[1].assign(split="train")))["epoch"] == QUICK.epochs


def test_training_stops_when_validation_no_longer_improves(train, monkeypatch):
    falling = iter(np.linspace(0.9, 0.1, 20))
    monkeypatch.setattr(finetuning, "_val_aucs", lambda *_: {"val_auc": float(next(falling))})
    record = record_of(train(settings=dataclasses.replace(QUICK, epochs=20, patience=2)))
    assert record["epoch"] == 1
    assert len(record["history"]) == 3


def test_a_single_person_and_no_epochs_are_refused(photos, train):
    with pytest.raises(ValueError, match="at least 2 people"):
        train(faces=photos[1].assign(identity="ann"))
    with pytest.raises(ValueError, match="epochs is 0"):
        train(settings=dataclasses.replace(QUICK, epochs=0))


def test_a_person_with_many_photos_does_not_make_a_pass_long(train, monkeypatch):
    augment = finetuning.augment
    batches: list[int] = []

    def counted(*args):
        batches.append(len(args[0]))
        return augment(*args)

    monkeypatch.setattr(finetuning, "augment", counted)
    train(settings=dataclasses.replace(QUICK, epochs=1, batch_size=4, most_photos=2))
    assert batches == [4, 4]  # 4 people, 2 of their 6 photos each


def test_training_starts_from_what_is_known_of_the_people(train, tmp_path):
    """A network that tells them apart already must not be led astray by classes at random places."""
    settings = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-9, margin=0.0, clean=1.0, jitter=0.0)
    accuracy = {}
    for knows in (False, True):
        start = small_network(origin=dataclasses.replace(ORIGIN, knows_faces=knows))
        history = history_of(train(start, settings, workspace=tmp_path / str(knows)))
        accuracy[knows] = history["accuracy"].iloc[0]
    assert accuracy[True] > accuracy[False] + 0.3


@pytest.mark.parametrize("width", [3, 40])
def test_a_teacher_of_any_width_gives_the_classes_their_places(photos, train, width, monkeypatch):
    teacher = np.random.default_rng(1).normal(size=(32, width)).astype(np.float32)
    placed = []
    imprint = losses.imprint

    def noted(loss, places, labels):
        placed.append(places)
        imprint(loss, places, labels)

    monkeypatch.setattr(losses, "imprint", noted)
    train(settings=dataclasses.replace(QUICK, epochs=1), teacher=teacher)
    rows = (photos[1]["split"] == "train").to_numpy()
    unit_rows = teacher[rows] / np.linalg.norm(teacher[rows], axis=1, keepdims=True)
    (places,) = placed
    assert places.shape == (24, 8)
    if width <= 8:  # nothing of the teacher's angles is lost
        assert np.allclose(places @ places.T, unit_rows @ unit_rows.T, atol=1e-5)


def test_frozen_layers_stay_as_they_are(train):
    start = small_network()
    settings = dataclasses.replace(QUICK, frozen=0.5)  # of convolution and batch norm, weights and biases
    tuned = weights.read(train(start, settings) / network.WEIGHTS_FILE)
    before = start.state_dict()
    assert torch.equal(tuned["backbone.0.weight"], before["backbone.0.weight"])
    assert torch.equal(tuned["backbone.0.bias"], before["backbone.0.bias"])
    assert not torch.equal(tuned["backbone.1.weight"], before["backbone.1.weight"])


def test_rows_that_do_not_match_and_a_teacher_with_gaps_are_refused(photos, train):
    with pytest.raises(ValueError, match="32 faces, 31 crops"):
        train(crops=photos[0][1:])
    gaps = np.ones((32, 5), np.float32)
    with pytest.raises(ValueError, match="31 embeddings of the teacher"):
        train(teacher=gaps[1:])
    gaps[0] = np.nan
    with pytest.raises(ValueError, match="teacher fails on photos in train"):
        train(teacher=gaps)


def test_the_margin_waits_and_the_rate_rises_and_falls():
    progress = np.linspace(0, 1, 101)
    settings = finetuning.Settings(warmup=0.1, margin=0.3, margin_from=0.3, margin_until=0.6)
    margins = np.array([finetuning.margin_share(p, settings) for p in progress])
    rates = np.array([finetuning.rate(p, settings) for p in progress])
    assert (margins[progress <= 0.3] == 0).all()
    assert np.allclose(margins[progress >= 0.6], 1)
    assert (np.diff(margins) >= 0).all()
    assert rates.argmax() == 10
    assert rates[-1] < 1e-6 < rates[0]


LEARNT = dataclasses.replace(ORIGIN, learnt=True)


def test_val_chooses_the_rate_of_a_learnt_backbone_and_the_record_says_so(
    photos, train, tmp_path, monkeypatch
):
    settings = dataclasses.replace(QUICK, epochs=4, trial=0.5, try_rates=(0.3, 1.0, 3.0))
    rates: list[float] = []

    def val_aucs(averaged, data):
        return {"val_auc": {0.3: 0.8, 1.0: 0.9, 3.0: 0.7}[rates[-1]]}

    class Noted(finetuning.Learner):
        def __init__(self, start, data, settings, make_loss):
            rates.append(settings.backbone_rate)
            super().__init__(start, data, settings, make_loss)

    monkeypatch.setattr(finetuning, "_val_aucs", val_aucs)
    monkeypatch.setattr(finetuning, "Learner", Noted)
    start = small_network(origin=LEARNT)
    record = record_of(train(start, settings))
    assert rates == [0.3, 1.0, 3.0, 1.0]
    assert [(line["backbone_rate"], line["epochs"], line["val_auc"]) for line in record["trials"]] == [
        (0.3, 2, 0.8), (1.0, 2, 0.9), (3.0, 2, 0.7),
    ]  # fmt: skip
    assert record["settings"]["backbone_rate"] == 1.0
    said = finetuning.trials_in_words(record)
    assert "get 1 times the learning rate" in said and "0.3 gives AUC 0.800" in said
    assert finetuning.trials_in_words({}) == ""
    data = loading.training_data(photos[0], photos[1], settings, None)
    file = tmp_path / "training" / "trials.json"
    again = finetuning._choose_rate(start, data, settings, losses.cosface, file)
    assert len(rates) == 4, "what has been tried is not tried again"
    assert again == (dataclasses.replace(settings, backbone_rate=1.0), record["trials"])


@pytest.mark.parametrize("lacking", ["learnt weights", "val"])
def test_nothing_is_tried_where_there_is_nothing_to_choose(photos, train, lacking):
    start = small_network(origin=ORIGIN if lacking == "learnt weights" else LEARNT)
    faces = photos[1].assign(split="train") if lacking == "val" else photos[1]
    settings = dataclasses.replace(QUICK, epochs=1, try_rates=(0.5, 0.7))
    record = record_of(train(start, settings, faces=faces))
    assert record["trials"] == []
    assert record["settings"]["backbone_rate"] == settings.backbone_rate


def test_a_rate_at_which_the_loss_breaks_is_not_chosen(train, monkeypatch):
    epoch = finetuning._epoch

    def breaking(learner, *rest):
        if learner.settings.backbone_rate == 3.0:
            raise FloatingPointError
        return epoch(learner, *rest)

    monkeypatch.setattr(finetuning, "_epoch", breaking)
    settings = dataclasses.replace(QUICK, try_rates=(3.0, 1.0))
    assert record_of(train(small_network(origin=LEARNT), settings))["settings"]["backbone_rate"] == 1.0


# ---------------------------------------------------------------- on other devices


@pytest.fixture
def no_generator_elsewhere(monkeypatch):
    """Generators of a device that is not there live on the CPU, as what is moved there does."""
    made: list[str] = []

    def generator(where="cpu"):
        made.append(torch.device(where).type)
        return torch.Generator()

    monkeypatch.setattr(finetuning, "Generator", generator)
    return made


@pytest.mark.parametrize(
    ("capability", "precision"), [(fake_gpu.T4, torch.float16), (fake_gpu.GTX1080, torch.float32)]
)
def test_it_trains_and_validates_where_networks_work(
    train, monkeypatch, no_generator_elsewhere, capability, precision
):
    moves = fake_gpu.pretend(monkeypatch, capability)
    seen = []
    gradients = stepping.Stepper.gradients

    def noted(self, *given):
        seen.append((self.where.type, self.precision, self.scaler.is_enabled()))
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)  # there are no CUDA tensors to scale
        return gradients(self, *given)

    monkeypatch.setattr(stepping.Stepper, "gradients", noted)
    history = history_of(train(settings=dataclasses.replace(QUICK, epochs=1)))
    assert np.isfinite(history["val_auc"]).all()
    assert seen[0] == ("cuda", precision, precision == torch.float16)
    assert no_generator_elsewhere == ["cuda"]
    assert "cuda" in moves and "cpu" in moves


def test_apples_gpu_gets_its_photos_made_worse_by_the_cpu(train, monkeypatch, no_generator_elsewhere):
    """It lacks border padding, antialiasing, Fourier transforms and more, each in some version of torch."""
    moves = []
    of_module, of_tensor = torch.nn.Module.to, torch.Tensor.to

    def there(self, *given, **options):
        if torch.device("mps") in given:
            moves.append("network" if isinstance(self, torch.nn.Module) else self.dtype)
            given = tuple(value for value in given if value != torch.device("mps"))
        move = of_module if isinstance(self, torch.nn.Module) else of_tensor
        return move(self, *given, **options) if given or options else self

    monkeypatch.setattr(torch.nn.Module, "to", there)
    monkeypatch.setattr(torch.Tensor, "to", there)
    monkeypatch.setattr(finetuning.devices, "device", lambda: torch.device("mps"))
    monkeypatch.setattr(finetuning.devices, "give_back", lambda where: None)
    train(settings=dataclasses.replace(QUICK, epochs=1))
    assert no_generator_elsewhere == ["cpu"]
    trained_on = [kind for kind in moves if kind != "network"]
    assert "network" in moves and trained_on[0] == torch.float32, "made worse first, then moved"


def test_a_batch_that_does_not_fit_is_trained_in_parts(train, monkeypatch, capsys):
    network_forward = FaceNetwork.forward
    seen = []

    def small(self, images):
        if self.training:
            seen.append(len(images))
            if len(images) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return network_forward(self, images)

    monkeypatch.setattr(FaceNetwork, "forward", small)
    history = history_of(train(settings=dataclasses.replace(QUICK, epochs=2)))
    assert seen[:3] == [8, 4, 4] and set(seen[1:]) == {4}
    assert np.isfinite(history["loss"]).all()
    assert "4 photos at a time" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_a_resumed_run_keeps_no_file_open_that_it_will_replace(photos, train, tmp_path):
    """Windows can't replace a file that is mapped."""
    data = loading.training_data(photos[0], photos[1], QUICK, None)
    learner = finetuning.Learner(small_network(), data, QUICK, losses.cosface)
    finetuning._epoch(learner, data, loading.batches_of(data, QUICK), 0, 3, tqdm(disable=True))
    file = tmp_path / "state.safetensors"
    learner.keep(file, [])
    again = finetuning.Learner(small_network(), data, QUICK, losses.cosface)
    again.restore(file)
    kept = weights.read(file)
    assert str(file) not in Path("/proc/self/maps").read_text(encoding="utf-8") and kept


def others(photos):
    """Crops of no one's colours, and what is left of the four people's in a smear."""
    rng = np.random.default_rng(5)
    colours = rng.integers(30, 226, (24, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    strange = np.clip(colours + rng.normal(0, 20, (24, 32, 32, 3)), 0, 255).astype(np.uint8)
    smears = np.broadcast_to(photos[0].mean((1, 2), keepdims=True), photos[0].shape).astype(np.uint8)
    kinds = np.repeat(["others", "smears"], [24, len(smears)])
    return loading.Nobody(np.concatenate([strange, smears]), kinds)


def with_norm():
    """A small network whose head ends as a ResNet-50's does."""
    small = small_network()
    head = torch.nn.Sequential(torch.nn.Linear(256, 8, bias=False), torch.nn.BatchNorm1d(8))
    return FaceNetwork(small.backbone, head, ORIGIN)


def test_a_network_that_has_seen_others_takes_fewer_of_them_for_its_people(photos, train, tmp_path):
    settings = dataclasses.replace(QUICK, epochs=25, learning_rate=1e-2, averaging=0.9, nobody=0.5)
    known, new = photos[0][photos[1]["split"] == "train"], others(photos).crops[:24]
    taken, records = [], []
    for seen in (None, others(photos)):
        torch.manual_seed(0)
        folder = train(with_norm(), settings, nobody=seen, workspace=tmp_path / f"{seen is None}")
        records.append(record_of(folder))
        state = weights.read(folder / network.WEIGHTS_FILE)
        tuned = with_norm()
        tuned.load_state_dict(state)
        means = embedding.embed(known, tuned).reshape(4, 6, -1).mean(1)
        taken.append((embedding.embed(new, tuned) @ embedding.unit_rows(means).T).max(1).mean())
    assert taken[1] < taken[0] - 0.1
    assert "turned" not in records[0] and records[1]["turned"] in finetuning.TURNED
    assert records[1]["history"][-1]["val_auc"] > 0.9


def test_photos_of_nobody_resume_too_and_packs_are_not_turned_from_them(photos, train, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, "PAUSE", 0.0)
    seen = others(photos)
    at_once = train(with_norm(), nobody=seen, workspace=tmp_path / "at once")
    with interrupted(monkeypatch):
        train(with_norm(), nobody=seen, workspace=tmp_path / "in parts")
    in_parts = train(with_norm(), nobody=seen, workspace=tmp_path / "in parts")
    first, second = ((folder / network.WEIGHTS_FILE).read_bytes() for folder in (at_once, in_parts))
    assert first == second
    knowing = small_network(origin=dataclasses.replace(ORIGIN, knows_faces=True))
    record = record_of(train(knowing, nobody=seen, workspace=tmp_path / "pack"))
    assert "turned" not in record and np.isfinite(record["history"][-1]["val_auc"])
