"""The Triton kernels compile for every GPU we name, without one, and NVIDIA's keep all their state in registers."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tempclr_kernels import otam_columns, pairwise_triton, rowscan, wavefront

triton = pytest.importorskip("triton")
if not isinstance(wavefront._kernels().sweep_forward, triton.runtime.JITFunction):
    pytest.skip("this process interprets kernels (TRITON_INTERPRET=1)", allow_module_level=True)

SM80, SM90, SM100, GFX942 = ("cuda", 80, 32), ("cuda", 90, 32), ("cuda", 100, 32), ("hip", "gfx942", 64)
TARGETS = {"sm_80": SM80, "sm_90": SM90, "sm_100": SM100, "gfx942": GFX942}
KERNELS = ("sweep_forward", "sweep_backward", "sweep_slope", "sweep_curvature")
# Several pairs a warp; one pair a warp; one block of many warps; several strips.
SIZES = {"packed": (8, 60), "short": (31, 40), "wide": (400, 500), "strips": (1500, 1400)}


@dataclass(frozen=True)
class Build:
    kernel: str
    target: str
    size: str = "short"
    measure: str = "dtw"
    gamma: float = 0.1
    dtype: torch.dtype = torch.float32
    orders: bool = True

    def __str__(self) -> str:
        names = [self.kernel, self.target, self.size, self.measure, f"gamma{self.gamma:g}", str(self.dtype)[6:]]
        return "-".join([*names, "orders" if self.orders else "plain"])


def compiled(build: Build) -> Any:
    """Compile with the constants that the launcher would pass for a matrix of that size."""
    cost = torch.empty(1, *SIZES[build.size], dtype=build.dtype, device="meta")
    sweep = wavefront.Sweep(cost, cost, None, None, build.measure, build.gamma)
    constants = sweep.constants()
    constants["FAST_LOG2"] = build.target != "gfx942" and build.dtype == torch.float32
    source = wavefront._kernels() if build.kernel in KERNELS[:2] else wavefront._tangent_kernels()
    kernel = getattr(source, build.kernel)
    element = {torch.float32: "*fp32", torch.float64: "*fp64"}[build.dtype]
    signature: dict[str, str] = {}
    for name in kernel.arg_names:
        optional = "order" in name and name.startswith("p_") and not build.orders
        optional |= name == "p_table" and build.kernel == "sweep_forward" and not build.orders
        optional |= name in ("p_edge", "p_slope_edge", "p_flow", "p_flow_slope") and not constants["STRIPS"]
        if name in constants or optional:
            signature[name] = "constexpr"
            constants.setdefault(name, None)
        elif name.startswith("p_"):
            signature[name] = "*i64" if name in ("p_lengths", "p_lane_order", "p_step_order") else element
        else:
            signature[name] = "fp64" if "gamma" in name else "i32"
    constants = {name: value for name, value in constants.items() if name in signature}
    return triton.compile(
        triton.compiler.ASTSource(kernel, signature=signature, constexprs=constants),
        target=triton.backends.compiler.GPUTarget(*TARGETS[build.target]),
        options=sweep.options(nvidia=build.target != "gfx942"),
    )


def compiled_scan(kernel: str, target: str, shape: tuple[int, int], dtype: torch.dtype) -> Any:
    """Compile a scan along the longer side, with orders of both sides."""
    from tempclr_kernels import rowscan_kernels

    cost = torch.empty(1, *shape, dtype=dtype, device="meta")
    sweep = rowscan.RowScan(cost, cost, None, None, "dtw", 0.0)
    source, constants = getattr(rowscan_kernels, kernel), sweep.constants()
    element = {torch.float32: "*fp32", torch.float64: "*fp64"}[dtype]
    signature = {}
    for name in source.arg_names:
        pointer = "*i64" if name in ("p_lengths", "p_lane_order", "p_step_order") else element
        signature[name] = "constexpr" if name in constants else pointer if name.startswith("p_") else "i32"
    return triton.compile(
        triton.compiler.ASTSource(source, signature=signature, constexprs=constants),
        target=triton.backends.compiler.GPUTarget(*TARGETS[target]),
        options=sweep.options(nvidia=target != "gfx942"),
    )


def compiled_columns(kernel: str, target: str, rows: int, gamma: float, dtype: torch.dtype) -> Any:
    """Compile OTAM by columns, with orders of both sides."""
    from tempclr_kernels import otam_kernels

    cost = torch.empty(1, rows, 40, dtype=dtype, device="meta")
    sweep = otam_columns.ColumnSweep(cost, cost, None, None, "otam", gamma)
    source, constants = getattr(otam_kernels, kernel), sweep.constants()
    if kernel == "column_forward":
        constants["FAST_LOG2"] = target != "gfx942" and dtype == torch.float32
    element = {torch.float32: "*fp32", torch.float64: "*fp64"}[dtype]
    signature = {}
    for name in source.arg_names:
        pointer = "*i64" if name in ("p_lengths", "p_lane_order", "p_step_order") else element
        scalar = "fp64" if "gamma" in name else "i32"
        signature[name] = "constexpr" if name in constants else pointer if name.startswith("p_") else scalar
    return triton.compile(
        triton.compiler.ASTSource(source, signature=signature, constexprs=constants),
        target=triton.backends.compiler.GPUTarget(*TARGETS[target]),
        options=sweep.options(nvidia=target != "gfx942"),
    )


def compiled_pairs(kernel: str, target: str, measure: str, gamma: float, turned: bool, dtype: torch.dtype) -> Any:
    """Compile a kernel of all pairs, with cosines whose norms are multiplied beforehand."""
    from tempclr_kernels import pairwise_triton_kernels

    source = getattr(pairwise_triton_kernels, kernel)
    constants = pairwise_triton.constants(measure, gamma, dtype, turned=turned, nvidia=target != "gfx942")
    constants["SIMILARITY"] = 1
    constants = {name: value for name, value in constants.items() if name in source.arg_names}
    element = {torch.float32: "*fp32", torch.float64: "*fp64"}[dtype]
    signature = {}
    for name in source.arg_names:
        pointer = "*i64" if "lengths" in name else element
        scalar = "fp64" if "gamma" in name or name == "eps" else "i32"
        signature[name] = "constexpr" if name in constants else pointer if name.startswith("p_") else scalar
    return triton.compile(
        triton.compiler.ASTSource(source, signature=signature, constexprs=constants),
        target=triton.backends.compiler.GPUTarget(*TARGETS[target]),
        options={"num_warps": 1},
    )


def registers_and_stack(cubin: bytes, folder: Path) -> tuple[int, int]:
    """Registers of a thread, and the bytes of local memory it needs: anything spilled out of registers is there."""
    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip(f"this triton brings no cuobjdump ({tool})")
    report = subprocess.run([tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", report)
    assert found, report
    return int(found[1]), int(found[2]) + int(found[3])


# A multiprocessor's 65536 registers then hold the 32 programs of one warp, or the four of four, that fill it.
MOST_REGISTERS = {"packed": 64, "short": 64, "wide": 128, "strips": 128}

QUICK = [Build(kernel, target) for kernel in KERNELS for target in TARGETS]
QUICK += [Build(kernel, target, "packed") for kernel in KERNELS for target in ("sm_90", "gfx942")]
QUICK += [
    Build("sweep_forward", "sm_90", "short", "otam", 0.0, orders=False),
    Build("sweep_backward", "sm_90", "short", "otam", 0.0, orders=False),
    Build("sweep_forward", "sm_90", "wide"),
    Build("sweep_backward", "sm_90", "wide"),
    Build("sweep_forward", "sm_90", "strips", "otam", 0.1, torch.float64),
    Build("sweep_backward", "sm_90", "strips", "otam", 0.1, torch.float64),
    Build("sweep_forward", "gfx942", "strips", "dtw", 0.0, torch.float64),
    Build("sweep_backward", "gfx942", "strips", "dtw", 0.0, torch.float64),
]
ALL = [
    Build(kernel, target, size, measure, gamma, dtype)
    for kernel in KERNELS
    for target in TARGETS
    for size in SIZES
    for measure in ("dtw", "otam")
    for gamma in (0.0, 0.1)
    for dtype in (torch.float32, torch.float64)
    if gamma > 0 or kernel != "sweep_curvature"
]
SLOW = [pytest.param(build, marks=pytest.mark.slow) for build in ALL if build not in QUICK]


@pytest.mark.parametrize("build", [*QUICK, *SLOW], ids=lambda build: str(build))
def test_compiles_without_spills(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert_in_registers(compiled(build), build.target, MOST_REGISTERS[build.size], tmp_path)


def assert_in_registers(binary: Any, target: str, most_registers: int, folder: Path) -> None:
    if target == "gfx942":
        spilled = re.findall(r"\.(?:vgpr|sgpr)_spill_count:\s+(\d+)", binary.asm["amdgcn"])
        assert spilled and not any(map(int, spilled))
    else:
        registers, stack = registers_and_stack(binary.asm["cubin"], folder)
        assert stack == 0 and registers <= most_registers, f"{registers} registers, {stack} bytes of stack"


@pytest.mark.parametrize(
    ("rows", "gamma", "dtype"), [(32, 0.0, torch.float32), (32, 0.1, torch.float32), (128, 0.1, torch.float64)]
)
@pytest.mark.parametrize("kernel", ["column_forward", "column_backward"])
@pytest.mark.parametrize("target", TARGETS)
def test_columns_compile_without_spills(
    target: str,
    kernel: str,
    rows: int,
    gamma: float,
    dtype: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    binary = compiled_columns(kernel, target, rows, gamma, dtype)
    assert_in_registers(binary, target, 64 if rows == 32 else 255, tmp_path)


SCANNED = [(shape, dtype) for shape in ((10, 650), (2048, 32)) for dtype in (torch.float32, torch.float64)]


@pytest.mark.parametrize(("shape", "dtype"), SCANNED)
@pytest.mark.parametrize("kernel", ["scan_forward", "scan_backward"])
@pytest.mark.parametrize("target", TARGETS)
def test_scans_compile_without_spills(
    target: str,
    kernel: str,
    shape: tuple[int, int],
    dtype: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert_in_registers(compiled_scan(kernel, target, shape, dtype), target, 255, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("kernel", "measure", "gamma", "turned"),
    [
        ("aligned_pairs", "dtw", 0.0, False),
        ("aligned_pairs", "dtw", 0.1, False),
        ("aligned_pairs", "otam", 0.0, True),
        ("aligned_pairs", "otam", 0.1, True),
        ("best_matches", "cap_avg", 0.0, False),
    ],
)
@pytest.mark.parametrize("target", TARGETS)
def test_all_pairs_compile_without_spills(
    target: str,
    kernel: str,
    measure: str,
    gamma: float,
    turned: bool,
    dtype: torch.dtype,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    binary = compiled_pairs(kernel, target, measure, gamma, turned, dtype)
    assert_in_registers(binary, target, 80, tmp_path)


def test_short_sides_need_one_warp_and_no_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shift between lanes is then a warp shuffle, with no barrier on the critical path."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for kernel in KERNELS:
        metadata = compiled(Build(kernel, "sm_90")).metadata
        assert (metadata.num_warps, metadata.shared) == (1, 0)
