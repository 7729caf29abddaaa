import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from iwin.bench.machine import forget_peak, resident_bytes
from iwin.bench.subjects import Job, Subject, build_subject, count_macs
from iwin.bench.variants import DEFAULT, VARIANTS, baseline, find_variant
from iwin.bench.worker import TURN, peak_memory, saved_bytes
from iwin.errors import ConfigError
from iwin.models.block import IwinBlock
from tests.models.precisions import needs_kernels

SMALL = Job(variant="fp32", model="iwin_nano", frames=4, height=32, width=32)


@pytest.mark.parametrize(
    "name", ["reference-bf16", "reference-bf16-cast", "reference-fp16", "fp32", "bf16", "bf16-cast", "fp16"]
)
def test_variants_give_the_logits_of_the_reference(name: str) -> None:
    right = build_subject(find_variant("reference-fp32"), SMALL).step()
    found = build_subject(find_variant(name), SMALL).step().float()
    assert right.std() > 0.1  # weights of a trained model's size, so that equality means something
    torch.testing.assert_close(found, right, rtol=0, atol=1e-5 if name == "fp32" else 0.1)


def test_training_step_has_the_gradients_of_the_reference_and_moves_the_weights() -> None:
    subjects = [build_subject(find_variant(name), replace(SMALL, train=True)) for name in ("reference-fp32", "fp32")]
    before = [p.clone() for p in subjects[1].model.parameters()]  # type: ignore[union-attr]
    losses = [subject.step() for subject in subjects]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(subjects[1].gradients, subjects[0].gradients, rtol=1e-3, atol=1e-5)
    assert not all(map(torch.equal, before, subjects[1].model.parameters()))  # type: ignore[union-attr]


def test_saved_bytes_are_those_of_the_tensors_kept_for_the_backward_pass() -> None:
    plain, checkpointed = (
        saved_bytes(build_subject(find_variant(name), replace(SMALL, train=True)))
        for name in ("fp32", "fp32-checkpointed")
    )
    assert 0 < checkpointed < 0.5 * plain


def test_peak_memory_counts_what_a_pass_takes_and_gives_back() -> None:
    subject = build_subject(find_variant("fp32"), SMALL)

    def bigger() -> torch.Tensor:
        ballast = torch.ones(16 * 2**20)
        return subject.step() + 0 * ballast[0]

    assert 60 * 2**20 < peak_memory(SMALL, replace(subject, step=bigger))["peak_bytes"] < 100 * 2**20


@pytest.mark.slow
@needs_kernels
def test_peak_memory_counts_what_stays_for_the_next_pass() -> None:
    block = IwinBlock(96, num_heads=3).eval()
    # more than 32 MiB, which GNU's C library never takes from what the process has freed
    clips = torch.randn(1, 24, 64, 64, 96)

    def step() -> torch.Tensor:
        with torch.inference_mode():
            return block(clips)

    step()
    peak = peak_memory(SMALL, Subject(step, step, clips=1, macs=1))["peak_bytes"]
    assert peak > 1.8 * clips.nbytes  # what comes out, and the block's room


def test_peak_is_forgotten() -> None:
    torch.ones(32 * 2**20).sum()
    forget_peak()
    assert resident_bytes(peak=True) - resident_bytes() < 32 * 2**20


@pytest.mark.parametrize(("name", "gmacs"), [("swin3d_t", 43.88), ("mvit_v2_s", 64.22)])
def test_peers_cost_what_their_authors_say(name: str, gmacs: float) -> None:
    assert count_macs(name, (1, 3, 16, 224, 224)) / 1e9 == pytest.approx(gmacs, rel=0.05)


def test_names_of_variants_are_unique_and_their_baselines_exist() -> None:
    names = [variant.name for variant in VARIANTS]
    assert len(set(names)) == len(names)
    assert {base for variant in VARIANTS if (base := baseline(variant))} <= set(names)
    assert {name for names in DEFAULT.values() for name in names} <= set(names)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'bf16-compiled'"):
        find_variant("bf16-compile")
    with pytest.raises(ConfigError, match="iwin_nano"):
        build_subject(find_variant("fp32"), replace(SMALL, model="iwin_huge"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fp32-compiled", "fp32-exported"])
def test_compiled_and_exported_variants_give_the_logits_of_the_reference(name: str) -> None:
    right = build_subject(find_variant("reference-fp32"), SMALL).step()
    torch.testing.assert_close(build_subject(find_variant(name), SMALL).step(), right, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_worker_answers_in_json_alone(tmp_path: Path) -> None:
    request = json.dumps({"job": asdict(SMALL), "output": str(tmp_path / "out.pt")})
    done = subprocess.run(
        [sys.executable, "-m", "iwin.bench.worker"],
        input=f'{request}\n"go"\n',
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    ready, timed = map(json.loads, done.stdout.splitlines())
    assert ready["clips"] == 1
    assert sum(timed["seconds"]) >= TURN
    assert all(seconds > 0 for seconds in timed["seconds"])
    assert torch.load(tmp_path / "out.pt")["result"].shape == (1, 400)
