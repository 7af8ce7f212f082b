"""How a machine is described."""

from pathlib import Path

import pytest

from cifar_lightning.utils.environment import processor

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
