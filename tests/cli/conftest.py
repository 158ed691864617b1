"""What the tests of the commands share."""

import pytest

from tests.street_runs import draw_street


@pytest.fixture
def street(tmp_path):
    """A tree with a training, a validation and an unlabelled test split."""
    return draw_street(tmp_path / "cityscapes")
