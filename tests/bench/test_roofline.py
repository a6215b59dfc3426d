"""benchmarks/roofline.py: the same path on a CPU as on a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import roofline
import torch


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64", "convolution"),
        ("void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816dgrad_optimized_bf16>", "convolution"),
        ("aten::mkldnn_convolution", "convolution"),
        ("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "matmul"),
        ("aten::addmm", "matmul"),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float, int, 512, true, 1, true>", "batch norm"),
        ("aten::native_batch_norm_backward", "batch norm"),
        ("void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add>", "elementwise"),
        ("void at::native::(anonymous namespace)::max_pool_backward_nhwc", "pooling"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<TensorListMetadata<2>>", "optimiser"),
        ("Memcpy HtoD (Pinned -> Device)", "memcpy"),
        ("aten::_to_copy", "memcpy"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "nccl"),
        ("something_new", "other"),
    ],
)
def test_a_kernel_belongs_to_one_class(name: str, kind: str) -> None:
    assert roofline.class_of(name) == kind


def test_times_of_a_class_are_summed_and_the_largest_comes_first() -> None:
    found = roofline.by_class([("aten::mm", 1.0), ("aten::max_pool2d", 5.0), ("aten::addmm", 2.0)])
    assert list(found.items()) == [("pooling", 5.0), ("matmul", 3.0)]


def test_a_peak_is_that_of_the_device_and_the_precision() -> None:
    peak = roofline.peak_of("NVIDIA H100 80GB HBM3", "bf16")
    assert peak is not None
    assert (peak.tflops, peak.gbs) == (989.4, 3350)
    assert "datasheet" in peak.source
    assert roofline.peak_of("NVIDIA H100 PCIe", "bf16") != peak
    assert roofline.peak_of("Tesla V100-SXM2-16GB", "bf16") is None
    assert roofline.peak_of("Intel(R) Xeon(R) Processor", "float32") is None


def test_bytes_are_those_of_what_goes_in_and_comes_out() -> None:
    a, b = torch.zeros(10, 20), torch.zeros(20, 30)
    with roofline.Bytes() as moved:
        torch.mm(a, b)
        a.view(200)
    assert moved.total == 4 * (10 * 20 + 20 * 30 + 10 * 30)


def test_a_step_on_this_cpu_is_held_against_its_roofline(tmp_path: Path) -> None:
    file = tmp_path / "roofline.json"
    small = ["--model=resnet8", "--batch=4", "--image=16", "--steps=2", "--device=cpu", "--precision=float32"]
    command = [sys.executable, roofline.__file__, *small, f"--json={file}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert {"convolution", "batch norm", "optimiser"} <= found["classes"].keys()
    assert found["of_roofline"] > 0
    assert found["flops"] > 1e6
    assert "measured here" in found["peak"]["source"]
    assert "convolution" in done.stdout
