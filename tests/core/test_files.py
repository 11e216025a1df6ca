import pytest

from stepaudio_jax.core import files


def test_a_file_is_the_old_one_until_the_block_has_ended(tmp_path):
  path = tmp_path / "deep" / "a.json"
  with files.aside(path) as partial:
    partial.write_text("old")
  with files.aside(str(path)) as partial:
    partial.write_text("new")
    assert path.read_text() == "old"
  assert path.read_text() == "new"
  assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_block_that_fails_leaves_nothing(tmp_path):
  path = tmp_path / "a.json"
  path.write_text("old")

  def write():
    with files.aside(path) as partial:
      partial.write_text("half")
      raise KeyError("stop")

  with pytest.raises(KeyError):
    write()
  assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
  assert path.read_text() == "old"


def test_two_writers_of_one_file_do_not_meet(tmp_path):
  path = tmp_path / "a.json"
  with files.aside(path) as first, files.aside(path) as second:
    assert first != second
    assert first.name.endswith(files.PARTIAL)
    first.write_text("first")
    second.write_text("second")
  assert path.read_text() == "first"  # the outer block ends last


def test_a_folder_is_there_when_the_block_has_ended(tmp_path):
  path = tmp_path / "deep" / "a"
  with files.folder_aside(path) as partial:
    (partial / "x").write_text("x")
    assert not path.exists()
  assert (path / "x").read_text() == "x"
  assert [p.name for p in path.parent.iterdir()] == ["a"]
  again = files.folder_aside(path)
  with pytest.raises(FileExistsError, match="a exists; name a new folder"):
    again.__enter__()


def test_a_folder_whose_block_fails_is_not_left(tmp_path):
  def write():
    with files.folder_aside(tmp_path / "a") as partial:
      (partial / "x").mkdir()
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    write()
  assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_of_a_folder_is_replaced(tmp_path):
  (tmp_path / "a.partial").mkdir()
  (tmp_path / "a.partial" / "half").write_text("")
  with files.folder_aside(tmp_path / "a"):
    pass
  assert [p.name for p in tmp_path.rglob("*")] == ["a"]
