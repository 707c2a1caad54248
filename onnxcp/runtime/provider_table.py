"""The table of execution providers, which is read without ONNX Runtime.

`PROVIDERS` has a row for each provider with its own defaults, option types or settings for exact
results. Any other provider of the installed ONNX Runtime can be used by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

SUFFIX = "ExecutionProvider"
YES_OR_NO, WHOLE = ("0", "1"), "a whole number"
Kind = tuple[str, ...] | str  # the valid values of an option, or `WHOLE`


@dataclass(frozen=True, slots=True)
class Provider:
    """One row of `PROVIDERS`.

    `tolerance` is the largest relative L2 difference between outputs of two equivalent models on
    this provider, by dtype of the weights. `lacks` says why a precision has no benefit there; for
    other precisions ONNX Runtime decides, node by node.
    """

    name: str
    ort_name: str
    tolerance: Mapping[str, float]
    options: Mapping[str, str] = field(default_factory=dict)  # defaults
    exact: Mapping[str, str] = field(default_factory=dict)  # for outputs that are compared
    known: Mapping[str, Kind] | None = None  # valid options; None: ONNX Runtime checks them
    threads: str | None = None  # the option for the number of threads
    device: str = "cpu"  # whose memory holds inputs and outputs
    install: str = ""  # the argument of pip install; empty: no wheel is known
    libraries: str = "its driver and libraries"  # what to check if it does not load
    lacks: Mapping[str, str] = field(default_factory=dict)  # reason by precision


# float32: rounding of 6e-8 per product, times the cancellation inside a chain, times the depth of
# a network: at most 3.3e-6 on most real networks; 2.4e-4 in a style transfer network, whose
# InstanceNormalization amplifies it.
# float16: weights are rounded to 5e-4 in both models; 6e-4 was measured.
ROUNDING = {"float16": 1e-2, "float32": 1e-3, "float64": 1e-3}
# Other providers may multiply in TF32, bfloat16 or float16, which round to 5e-4 or 4e-3.
REDUCED = {"float16": 2e-2, "float32": 2e-2, "float64": 2e-2}

CUDA_OPTIONS: Mapping[str, Kind] = {
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "cudnn_conv1d_pad_to_nc1d": YES_OR_NO,
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "cudnn_conv_use_max_workspace": YES_OR_NO,
    "device_id": WHOLE,
    "do_copy_in_default_stream": YES_OR_NO,
    "enable_cuda_graph": YES_OR_NO,
    "enable_skip_layer_norm_strict_mode": YES_OR_NO,
    "fuse_conv_bias": YES_OR_NO,
    "gpu_mem_limit": WHOLE,
    "prefer_nhwc": YES_OR_NO,
    "sdpa_kernel": WHOLE,
    "tunable_op_enable": YES_OR_NO,
    "tunable_op_max_tuning_duration_ms": WHOLE,
    "tunable_op_tuning_enable": YES_OR_NO,
    "use_ep_level_unified_stream": YES_OR_NO,
    "use_tf32": YES_OR_NO,
}
GRAPH = "enable_cuda_graph"

PROVIDERS = {
    row.name: row
    for row in (
        Provider(
            "cpu",
            "CPUExecutionProvider",
            ROUNDING,
            known={},
            install="'onnxcp[cpu]'",
            # ResNet-20, one thread, x86 with AVX-512: 0.999 times as fast (95 % 0.996 to 1.002)
            lacks={
                "float16": "it still computes in float32, between casts, which is no faster; try "
                "<<precision=int8>>"
            },
        ),
        Provider(
            "cuda",
            "CUDAExecutionProvider",
            ROUNDING,
            # DEFAULT uses cuDNN's fallback heuristics, up to 50 times slower
            # (github.com/microsoft/onnxruntime/issues/22705)
            options={"cudnn_conv_algo_search": "EXHAUSTIVE"},
            exact={"use_tf32": "0"},
            known=CUDA_OPTIONS,
            device="cuda",
            install="'onnxcp[gpu]'",
            libraries="CUDA and cuDNN: pip install 'onnxruntime-gpu[cuda,cudnn]'",
            # github.com/microsoft/onnxruntime/issues/24807
            lacks={
                "int8": "it has no int8 convolutions and would compute them in float or on the "
                "CPU; try <<precision=float16>>"
            },
        ),
        Provider(
            "tensorrt",
            "TensorrtExecutionProvider",
            REDUCED,
            device="cuda",
            install="'onnxcp[gpu]'",
            libraries="TensorRT: pip install tensorrt; and CUDA: pip install "
            "'onnxruntime-gpu[cuda,cudnn]'",
            lacks={
                "int8": "it needs symmetric ranges, which onnxcp does not write; try "
                "<<precision=float16>>"
            },
        ),
        Provider(
            "openvino",
            "OpenVINOExecutionProvider",
            REDUCED,
            threads="num_of_threads",
            install="onnxruntime-openvino",
        ),
        Provider("directml", "DmlExecutionProvider", REDUCED, install="onnxruntime-directml"),
        Provider(
            "coreml",
            "CoreMLExecutionProvider",
            REDUCED,
            install="onnxruntime",
            lacks={"int8": "it only runs float models; try <<precision=float16>>"},
        ),
        Provider("xnnpack", "XnnpackExecutionProvider", REDUCED),
        Provider("migraphx", "MIGraphXExecutionProvider", REDUCED, install="onnxruntime-migraphx"),
        Provider("qnn", "QNNExecutionProvider", REDUCED, install="onnxruntime-qnn"),
    )
}
