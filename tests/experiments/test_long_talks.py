"""The command that writes long dialogues."""

import pytest

from experiments import long_talks
from stepaudio_jax.data.world import talks


def test_the_command_writes_what_it_was_asked_for(tmp_path, capsys):
  long_talks.main(["--out", str(tmp_path / "a"), "--turns=2", "--n=2", "--seed=5"])
  printed = capsys.readouterr().out.split()
  assert printed == [str(tmp_path / "a" / n) for n in (talks.DIALOGUES, talks.TRUTH)]
  talks.write(tmp_path / "b", dialogues=2, turns=2, seed=5)
  for name in (talks.DIALOGUES, talks.TRUTH):
    written = (tmp_path / "a" / name).read_bytes()
    assert written == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("wrong", [["--n", "3"], ["--turns", "1"], ["--turn", "8"]])
def test_a_wrong_command_writes_nothing(tmp_path, capsys, wrong):
  with pytest.raises(SystemExit) as stop:
    long_talks.main(["--out", str(tmp_path / "a"), *wrong])
  assert stop.value.code == 2
  assert wrong[0].strip("-") in capsys.readouterr().err
  assert not (tmp_path / "a").exists()
