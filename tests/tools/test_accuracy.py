"""The runs of the accuracy benchmarks: made once, and anew where something else is asked for."""

import importlib.util
from pathlib import Path

import pytest
from scipy import stats

TOOL = Path(__file__).parents[2] / "tools" / "benchmarks" / "accuracy.py"


@pytest.fixture(scope="module")
def accuracy():
    spec = importlib.util.spec_from_file_location("accuracy", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_is_made_once_and_anew_with_other_labels_or_when_cut_off(accuracy, tmp_path):
    file, asked = accuracy.run_file(tmp_path, "val", "our V3, ImageNet", 0), []
    assert file.name == "val-our-V3-ImageNet-0.json"

    def train(run):
        assert not run.exists()
        run.mkdir()
        (run / "metrics.jsonl").touch()
        asked.append(run)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return {"miou": 0.5}

    with pytest.raises(KeyboardInterrupt):
        accuracy.run_once(file, {"seed": 0, "recipe": ["optim.lr=0.1"]}, train)
    for recipe, runs in ((["optim.lr=0.1"], 2), (["optim.lr=0.1"], 2), (["optim.lr=0.2"], 3), (None, 4), (None, 4)):
        result = accuracy.run_once(file, {"seed": 0, "recipe": recipe}, train)
        assert (result["recipe"], result["miou"], len(asked)) == (recipe, 0.5, runs)


def test_the_interval_is_welchs(accuracy):
    a, b = [49.0, 51.5, 50.2, 48.9, 52.0], [44.1, 47.3, 46.0]
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert accuracy.half_interval(a, b) == pytest.approx((interval.high - interval.low) / 2)
