"""Which settings each kind of start gets; that each trains well is measured in test_finetuning."""

from dataclasses import replace

import pytest

from src.networks import recipes
from tests.networks.small import ORIGIN


@pytest.mark.parametrize(
    ("learnt", "knows_faces", "kind"),
    [(False, False, "nothing"), (True, False, "photos"), (True, True, "faces")],
)
def test_the_origin_decides_the_recipe(learnt, knows_faces, kind):
    origin = replace(ORIGIN, learnt=learnt, knows_faces=knows_faces)
    assert recipes.kind_of(origin) == kind
    assert recipes.recipe(origin) == recipes.RECIPES[kind]
    assert recipes.recipe(origin, epochs=3) == replace(recipes.RECIPES[kind], epochs=3)


def test_no_recipe_slows_a_learnt_backbone_to_a_tenth():
    """Measured: a tenth of the rate is worse than the pack, and worse than random weights."""
    for kind, settings in recipes.RECIPES.items():
        assert min((settings.backbone_rate, *settings.try_rates)) >= 0.3, kind
