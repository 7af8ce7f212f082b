"""How a machine is described, and in what it differs from another."""

from pathlib import Path

import pytest
import torch

from cifar_lightning.utils.environment import describe, differences, processor

AMD = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9R14: 96-Core
flags\t\t: fpu avx2 avx512_bf16 sse avx512f avx512_bf16x
bugs\t\t:

processor\t: 1
model name\t: another
flags\t\t: fpu
"""


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (AMD, "AMD EPYC 9R14: 96-Core (avx2, avx512f, avx512_bf16)"),
        ("model name\t: Xeon\nflags\t\t: fpu amx_bf16 avx2\n", "Xeon (avx2, amx_bf16)"),
        ("model name\t: Xeon\n", "Xeon"),
        ("processor\t: 0\nFeatures\t: fp asimd\n", "of the platform"),
        ("", "of the platform"),
        (None, "of the platform"),
    ],
)
def test_the_processors_name(cpuinfo: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.processor", lambda: "of the platform")
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert processor(tmp_path / "cpuinfo") == name


def test_every_pixel_counts() -> None:
    images, labels = torch.zeros(3, 3, 32, 32, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)
    saved = describe(torch.device("cpu"), images, labels)
    assert differences(saved, saved) == []
    for changed in (images, labels):
        changed.view(-1)[-1] = 1
        here = describe(torch.device("cpu"), images, labels)
        assert differences(saved, here) == [f"data {here['data']} (was {saved['data']})"]
        changed.view(-1)[-1] = 0
    assert differences({}, saved)[0] == f"python {saved['python']} (was not recorded)"
