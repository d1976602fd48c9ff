"""What a synthesizer promises: sound numbers, accurate phases, errors that a person can act on."""

import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from doppel_ray.core.errors import ConfigError
from doppel_ray.synth import ARCHITECTURES, Synth, SynthConfig, check_delta
from doppel_ray.synth.__main__ import main

BRIEF = {"sample_rate": 8000, "duration": 0.25, "control_rate": 480, "compile": False}


def test_parameter_counts() -> None:
    assert [len(Synth.create(name).parameters) for name in ARCHITECTURES] == [78, 130, 340]


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_render_extreme_parameters(name: str, seed: int, data: st.DataObject) -> None:
    synth = Synth.create(name, **BRIEF)
    theta = synth.sample(seed, range(16))
    theta[:8] = (theta[:8] > 0.5).float()
    theta[0], theta[1] = 0.0, 1.0
    theta[2, data.draw(st.integers(0, len(synth.parameters) - 1))] = data.draw(st.sampled_from([0.0, 1e-30, 1.0]))
    sounds = synth.render(theta)
    assert sounds.isfinite().all()
    assert sounds.abs().max() <= 1.0


@pytest.mark.slow
def test_phase_accuracy_over_ten_seconds() -> None:
    """A steady 12.5 kHz cosine against float64: 125,000 turns, and less than a hundredth of a turn off at the end."""
    synth = Synth.create("voice", 48000, 10.0, 480, compile=False)
    settings = {"keyboard.midi_f0": 126.5, "vco_1.tuning": 0.0, "vco_1.mod_depth": 0.0, "vco_1.initial_phase": 0.0}
    settings |= {"mixer.level.0": 1.0, "mixer.level.1": 0.0, "mixer.level.2": 0.0, "keyboard.duration": 4.0}
    settings |= {"adsr_1.attack": 0.0, "adsr_1.decay": 0.0, "adsr_1.release": 0.0}  # a level envelope, see ADSR
    settings |= {f"mod_matrix.mod.{i}": float(i == 4) for i in range(20)}
    theta = synth.from_human(settings)
    heard = synth.render(theta)[0].double()
    exact = synth._ranges.to_human(theta)[0]  # float64
    names = [p.name for p in synth.parameters]
    note = exact[names.index("keyboard.midi_f0")] + exact[names.index("vco_1.tuning")]
    hertz = 440.0 * 2.0 ** ((note - 69.0) / 12.0)
    expected = torch.cos(2.0 * math.pi * hertz / 48000 * torch.arange(1, 480001, dtype=torch.float64))
    assert (heard - expected)[-4800:].abs().max() < 2.0 * math.pi * 0.01


def test_human_values_round_trip() -> None:
    synth = Synth.create("voicefm")
    theta = synth.sample(0, range(8))
    assert (synth.from_human(synth.to_human(theta)) - theta).abs().max() < 1e-5


def test_pickle_synth() -> None:
    synth = Synth.create("voice", **BRIEF)
    sounds = synth.pairs(0, range(2), 0.1)
    assert torch.equal(pickle.loads(pickle.dumps(synth)).pairs(0, range(2), 0.1), sounds)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": "voices"}, "architecture is 'voices'.*voice, voicefm, parametric"),
        ({"name": "voice", "duration": -1.0}, "duration is -1.0"),
        ({"name": "voice", "duration": 0.0}, "duration is 0.0"),
        ({"name": "voice", "control_rate": 1}, "control_rate is 1 Hz.*at least 2"),
        ({"name": "voice", "control_rate": 20000}, "must not exceed sample_rate, 16000 Hz"),
        ({"name": "voice", "sine": 2}, "voice has no option 'sine'"),
        ({"name": "parametric", "sine": -1}, "sine is -1"),
    ],
)
def test_create_refuses_bad_options(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Synth.create(**options)  # type: ignore[arg-type]


def test_render_refuses_bad_theta() -> None:
    synth = Synth.create("voice", **BRIEF)
    with pytest.raises(ConfigError, match=r"\(1, 3\): it must be \(n, 78\)"):
        synth.render(torch.zeros(1, 3))
    theta = synth.sample(0, [0])
    theta[0, 1] = 1.5
    with pytest.raises(ConfigError, match=r"keyboard.duration, is 1.5: it must lie in \[0, 1\]"):
        synth.render(theta)
    with pytest.raises(ConfigError, match=r"adsr_1.attack is 3: it must lie in \[0, 2\]"):
        synth.from_human({"adsr_1.attack": 3.0})
    with pytest.raises(ConfigError, match=r"did you mean adsr_1\.attack"):
        synth.from_human({"adsr_1.atack": 1.0})


def test_check_delta() -> None:
    assert check_delta({"pitch": 0.05}) == {"pitch": 0.05}
    with pytest.raises(ConfigError, match="did you mean pitch"):
        check_delta({"pich": 0.1})
    with pytest.raises(ConfigError, match=r"delta of mix is 2.0: it must lie in \[0, 1\]"):
        check_delta({"mix": 2.0})


def test_config_builds_synth() -> None:
    synth = SynthConfig(architecture="parametric", sine=1, square_saw=0, fm_sine=0, fm_square_saw=0).build()
    assert synth.pairs(0, range(2), 0.1).shape == (2, 2, 16000)
    with pytest.raises(ValidationError, match="control_rate"):
        SynthConfig(control_rate=1)


def test_command_line_output(tmp_path: Path) -> None:
    """It writes pairs, a picture and a page."""
    rates = ["--sample-rate", "8000", "--duration", "0.25"]
    assert main(["--delta", "0.1", "--n", "2", "--out", str(tmp_path), *rates]) == 0
    folder = tmp_path / "delta_0.1"
    assert {path.name for path in folder.glob("*.wav")} == {"0_a.wav", "0_b.wav", "1_a.wav", "1_b.wav"}
    assert set(json.loads((folder / "parameters.json").read_text())["pairs"][0]["a"]) >= {"keyboard.midi_f0"}
    assert (folder / "pairs.png").stat().st_size > 10_000
    assert "delta_0.1/1_b.wav" in (tmp_path / "index.html").read_text()
    with pytest.raises(ConfigError, match="3"):
        main(["--delta", "3", "--out", str(tmp_path)])
    with pytest.raises(ConfigError, match="cannot be written"):
        main(["--out", str(tmp_path / "index.html" / "below")])
