"""Each file once: in one split, with all parts of its whole."""

import os
from pathlib import Path

import pytest

from gcnn.base.errors import UsageError
from gcnn.config.schema import DataConfig
from gcnn.data.corpus import load_corpus
from gcnn.data.sources import SPLITS, find_files, shard_problem


@pytest.fixture
def folder(tmp_path):
    for split in SPLITS:
        (tmp_path / f"{split}.txt").write_text(f"text of {split}\n")
    return tmp_path


def files_of(folder: Path, **entries: list[str]) -> dict[str, list[str]]:
    """data.files, a file a split but for those given."""
    entries = {split: [f"{split}.txt"] for split in SPLITS} | entries
    return {split: [str(folder / entry) for entry in names] for split, names in entries.items()}


def find(files: dict[str, list[str]]) -> dict[str, list[Path]]:
    return find_files(DataConfig(name="local", source="local", files=files))


def copy_by_path(path: Path, name: str) -> Path:
    """The same file by a path through another folder."""
    link = path.with_name(f"folder of {name}")
    link.symlink_to(path.parent, target_is_directory=True)
    return link / path.name


def symbolic(path: Path, name: str) -> Path:
    link = path.with_name(name)
    link.symlink_to(path)
    return link


def hard(path: Path, name: str) -> Path:
    link = path.with_name(name)
    os.link(path, link)
    return link


def test_a_glob_that_finds_another_splits_file_is_refused(folder):
    with pytest.raises(
        UsageError, match=r"valid\.txt is in the valid split and also in the train split.*\*\.txt"
    ):
        find(files_of(folder, train=["*.txt"]))
    with pytest.raises(
        UsageError, match=r"valid\.txt is in the test split and also in the valid split"
    ):
        find(
            files_of(folder, test=["valid.txt", "[v]alid.txt"])
            | {"valid": files_of(folder)["valid"]}
        )


def test_a_file_that_two_entries_of_a_split_find_is_refused(folder):
    with pytest.raises(
        UsageError,
        match=r"train\.txt is twice in the train split \(found by .*train.*\*n\.txt\)\. Give",
    ):
        find(files_of(folder, train=["train.txt", "*n.txt"]))


@pytest.mark.parametrize("link", [symbolic, hard, copy_by_path])
def test_a_file_by_another_name_is_the_same_file(folder, link):
    other = link(folder / "train.txt", "other.txt")
    with pytest.raises(UsageError, match=r"also in the train split, as .*train\.txt") as error:
        find(files_of(folder, test=[str(other.relative_to(folder))]))
    assert str(other) in str(error.value)


@pytest.mark.parametrize("link", [symbolic, hard])
def test_a_folder_whose_splits_are_one_file_is_refused(folder, link):
    (folder / "test.txt").unlink()
    link(folder / "valid.txt", "test.txt")
    with pytest.raises(
        UsageError,
        match=r"test\.txt is in the test split and also in the valid split, as .*valid\.txt",
    ):
        load_corpus(
            DataConfig(name="local", source="local", path=str(folder), cache_dir=str(folder / "c"))
        )


def test_a_file_that_is_written_out_twice_is_read_twice_with_a_warning(folder, caplog):
    name = str(folder / "train.txt")
    found = find(files_of(folder, train=["train.txt", "train.txt"], test=["train.txt"]))
    assert list(map(str, found["train"])) == [name, name]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"data.files: {name} is twice in the train split.",
        f"data.files: {name} is in the test split and also in the train split.",
    ]


def test_copies_are_files_of_their_own(folder):
    (folder / "test.txt").write_bytes((folder / "train.txt").read_bytes())
    assert set(find(files_of(folder))) == set(SPLITS)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["a.txt", "b.txt"], None),
        (["train-00000-of-00001.parquet"], None),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], None),
        (["x-1-of-2.txt", "x-2-of-2.txt"], None),
        ([f"news.en-{i:05}-of-00100" for i in range(1, 100)], None),
        (["train-00000-of-00002.parquet"], "train-00001-of-00002.parquet"),
        (["train-00001-of-00002.parquet"], "train-00000-of-00002.parquet"),
        (["x-00002-of-00003", "x-00003-of-00003"], "x-00001-of-00003"),
        (["a-0-of-1", "b-1-of-3"], "b-0-of-3, b-2-of-3"),
        (["x-2-of-4"], "x-0-of-4, x-1-of-4, x-3-of-4"),
        (["x-2-of-5"], "x-0-of-5, x-1-of-5, x-3-of-5, ..."),
        (["x-1-of-99999999999999"], "x-00000000000000-of-99999999999999, "),
    ],
)
def test_names_say_how_many_parts_a_whole_has(names, missing):
    found = shard_problem([Path("folder", name) for name in names])
    assert (found is None) == (missing is None)
    assert missing is None or f"parts are there, missing are {missing}" in found


def test_parts_of_two_versions_are_no_whole():
    paths = [Path(f"t-{number}.parquet") for number in ("0-of-1", "0-of-2", "1-of-2")]
    assert shard_problem(paths) == "t-*.parquet are parts of 1 and of 2, of two versions"


def test_folders_are_wholes_each(tmp_path):
    paths = [tmp_path / year / f"x-0000{i}-of-00002" for year in ("2023", "2024") for i in range(2)]
    assert shard_problem(paths) is None
    assert shard_problem(paths[:3]).startswith("1 of 2 parts are there")


def test_half_of_a_published_corpus_is_refused(tmp_path):
    for name in ("train-00000-of-00002", "validation-00000-of-00001", "test-00000-of-00001"):
        (tmp_path / f"{name}.parquet").touch()
    config = DataConfig(
        name="wikitext103", source="wikitext", hub_config="wikitext-103-v1", path=str(tmp_path)
    )
    with pytest.raises(
        UsageError,
        match=r"the whole train split: 1 of 2 parts .* train-00001-of-00002\.parquet\. Copy",
    ):
        find_files(config)
    (tmp_path / "train-00001-of-00002.parquet").touch()
    assert len(find_files(config)["train"]) == 2


def test_globs_that_find_a_part_are_read_with_a_warning_and_names_without(tmp_path, caplog):
    for split in SPLITS:
        for i in range(3):
            (tmp_path / f"{split}-0000{i}-of-00003.txt").write_text("a\n")
    whole = {split: [f"{split}-00000-of-*.txt", f"{split}-0000[12]-of-*.txt"] for split in SPLITS}
    find(files_of(tmp_path, **whole))
    find(files_of(tmp_path, **whole | {"train": ["train-00001-of-00003.txt"]}))
    assert not caplog.records
    find(files_of(tmp_path, **whole | {"train": ["train-0000[01]-of-00003.txt"]}))
    (record,) = caplog.records
    assert record.getMessage() == (
        "data.files.train does not hold the whole: 2 of 3 parts are there, "
        "missing are train-00002-of-00003.txt."
    )


def test_a_link_to_nothing_that_a_glob_finds_is_refused(folder):
    (folder / "train_2.txt").symlink_to(folder / "nothing")
    with pytest.raises(UsageError, match=r"files\.train: .*train_2\.txt is a link to nothing"):
        find(files_of(folder, train=["train*.txt"]))
