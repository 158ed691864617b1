"""docs/reproduce.md names every configuration of the tables, and none that is not there."""

import re

from densevision.config.loader import CONFIG_DIRS

PAGE = CONFIG_DIRS[0].parent / "docs" / "reproduce.md"


def test_the_page_names_every_row_and_no_other():
    named = set(re.findall(r"`((?:paper|ablations)/\w+)`", PAGE.read_text()))
    folder = CONFIG_DIRS[0]
    there = [*(folder / "paper").glob("table[78]_*.yaml"), *(folder / "ablations").glob("*.yaml")]
    assert named == {str(file.relative_to(folder).with_suffix("")) for file in there}
