"""Where the tests find the data sets, a picture of none, and the rule that with data at hand no data test may skip."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

VARIABLE = "DENSEVISION_TEST_DATA"
# the tests' networks are tiny; a second thread gains nothing and costs fivefold where another process has the core
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of small real data sets."""
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} does not say where the test data is")
    folder = Path(os.environ[VARIABLE])
    if not folder.is_dir():
        pytest.fail(f"{VARIABLE} names {folder}, which is no folder")
    return folder


@pytest.fixture(scope="session")
def picture():
    """A smooth (48, 64, 3) picture without a flat spot."""
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(30, 220, (6, 8, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test marked ``data`` that skips although the data is there is a failure."""
    report = yield
    if report.skipped and item.get_closest_marker("data") and VARIABLE in os.environ:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped although {VARIABLE} is set"
    return report


def pytest_collection_modifyitems(items):
    """Whatever uses the data is a data test; what needs a GPU skips where there is none."""
    no_gpu = pytest.mark.skip(reason="no CUDA GPU here")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if "test_data" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
