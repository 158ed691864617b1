"""Configuration: what is accepted, and that each mistake is told with its place and the nearest right word."""

import dataclasses

import pytest
import yaml

from densevision.config import config_from_dict, config_to_dict, load_config
from densevision.config.loader import CONFIG_DIRS
from densevision.config.lookup import unknown_name
from densevision.config.schema import Config
from densevision.config.search_schema import SearchRun
from densevision.errors import UserError

LEAVES = sorted(file for file in CONFIG_DIRS[0].rglob("*.yaml") if file.parent.name not in ("base", "sweeps"))


@pytest.mark.parametrize("file", LEAVES, ids=lambda f: str(f.relative_to(CONFIG_DIRS[0])))
def test_every_config_of_the_project_loads(file):
    schema = SearchRun if file.parent.name == "search" else Config
    assert load_config(file, schema=schema).name == file.stem


def test_a_config_is_found_by_name_and_by_path():
    name = "lraspp_v3_cityscapes"
    by_name, by_path = load_config(name), load_config(CONFIG_DIRS[0] / f"{name}.yaml")
    assert by_name.config == by_path.config
    assert by_name.name == name


def test_the_leaf_wins_over_what_it_extends_and_overrides_win_over_all(tmp_path):
    (tmp_path / "low.yaml").write_text("data: {name: cityscapes, batch_size: 1, train_cities: [a, b]}\nseed: 1\n")
    (tmp_path / "mid.yaml").write_text("extends: [low.yaml]\ndata: {batch_size: 2}\n")
    leaf = tmp_path / "leaf.yaml"
    leaf.write_text(
        "extends: [mid.yaml]\ndata: {train_cities: [c]}\n"
        "model: {backbone: {name: mobilenet_v2}, head: {name: lraspp}}\n"
    )
    config = load_config(leaf, ["seed=3"]).config
    assert (config.data.batch_size, config.data.train_cities, config.seed) == (2, ["c"], 3)


def test_extends_reaches_the_projects_own_configs(tmp_path):
    leaf = tmp_path / "mine.yaml"
    leaf.write_text(
        "extends: [base/segmentation.yaml, base/cityscapes.yaml]\n"
        "model: {backbone: {name: mobilenet_v2}, head: {name: lraspp}}\n"
    )
    assert load_config(leaf).config.data.crop_size == [769, 769]


def test_extends_deeper_than_two_levels_is_refused(tmp_path):
    for child, parent in (("a", "b"), ("b", "c"), ("c", "d")):
        (tmp_path / f"{child}.yaml").write_text(f"extends: [{parent}.yaml]\n")
    (tmp_path / "d.yaml").write_text("seed: 1\n")
    with pytest.raises(UserError, match="deeper than 2 levels"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.backbone.widht_mult=0.5", ["model.backbone.widht_mult", "did you mean 'width_mult'"]),
        ("trainer.max_step=3", ["did you mean 'max_steps'"]),
        ("optimizer.lr=1", ["did you mean 'optim'"]),
        ("model.backbone.width_mult=wide", ["model.backbone.width_mult: expected a number, got 'wide'"]),
        ("data.batch_size=2.5", ["data.batch_size: expected a whole number, got 2.5"]),
        ("data.batch_size=0", ["data.batch_size", "at least 1", "0"]),
        ("data.flip=2", ["data.flip", "between 0 and 1"]),
        ("optim.schedule=pol", ["optim.schedule", "did you mean 'poly'"]),
        ("data.crop_size=[1,2,3]", ["data.crop_size", "[height, width]"]),
        ("data.crop_size=big", ["data.crop_size", "[height, width]"]),
        ("data.scale_range=[2,1]", ["data.scale_range", "[low, high]"]),
        ("data.train_cities=aachen", ["data.train_cities", "list"]),
        ("data=cityscapes", ["data", "expected keys below it"]),
        ("seed", ["key.path=value"]),
        ("model.backbone.reduced_tail=yes_please", ["model.backbone.reduced_tail", "segmentation, detection"]),
    ],
)
def test_a_wrong_override_is_named_with_what_would_be_right(override, words):
    with pytest.raises(UserError) as caught:
        load_config("lraspp_v3_cityscapes", [override])
    for word in [override, *words]:
        assert word in str(caught.value)


def test_a_wrong_key_in_a_file_names_the_file(tmp_path):
    (tmp_path / "base.yaml").write_text("trainer: {max_step: 3}\n")
    leaf = tmp_path / "leaf.yaml"
    leaf.write_text("extends: [base.yaml]\n")
    with pytest.raises(UserError, match=r"base\.yaml: trainer\.max_step: unknown key"):
        load_config(leaf)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "a: ${nope}\n", "\x00"])
def test_a_file_that_is_no_config_is_named(tmp_path, text):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"broken\.yaml"):
        load_config(file)


def test_a_missing_required_key_is_named(tmp_path):
    file = tmp_path / "empty.yaml"
    file.write_text("seed: 1\n")
    with pytest.raises(UserError, match=r"empty\.yaml.*is required"):
        load_config(file)


def test_a_missing_file_tells_the_nearest_name():
    with pytest.raises(UserError, match="did you mean 'lraspp_v3_cityscapes'"):
        load_config("configs/lrasp_v3_cityscapes.yaml")


def test_one_number_is_a_square_and_true_tail_becomes_the_tasks():
    config = load_config("lraspp_v3_cityscapes", ["data.crop_size=513"]).config
    assert config.data.crop_size == [513, 513]
    assert config.model.backbone.reduced_tail == "segmentation"


def test_a_config_survives_the_way_through_plain_values():
    config = load_config("lraspp_v3_cityscapes", ["optim.lr=1e-3"]).config
    stored = yaml.safe_load(yaml.safe_dump(config_to_dict(config)))
    again = config_from_dict(stored, "x.ckpt", ["data.batch_size=3"])
    assert again.config == dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=3))


def test_values_know_where_they_come_from():
    loaded = load_config("lraspp_v3_cityscapes", ["model.backbone.name=nope"])
    sentence = r"override 'model\.backbone\.name=nope': model\.backbone\.name: bad"
    with pytest.raises(UserError, match=sentence), loaded.blaming_origin():
        raise UserError("bad", key="model.backbone.name")


def test_an_unknown_name_among_many_gets_the_nearest():
    known = [f"trainer.key{number}" for number in range(100)]
    said = unknown_name("key", "trainer.kye12", known)
    assert "did you mean 'trainer.key12'?" in said
    assert "100 are known" in said
    assert len(said) < 250
