"""Quantize a folder of `save_pretrained` by llm-compressor; started by an interpreter that has it.

    python peer.py FOLDER WINDOWS OUTPUT FORMAT...     (FORMAT: METHOD:BITS:GROUP_SIZE or 0:symmetric or affine)

WINDOWS is a safetensors file with `input_ids` [n, length]. For each format, OUTPUT/<format>.safetensors gets the
dequantized weights, and a line of JSON the processor seconds and the peak memory of a process of its own.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """One process for each format, so that each has its own peak memory."""
    folder, windows, output, *formats = sys.argv[1:]
    if len(formats) == 1:
        quantize(folder, windows, Path(output), formats[0])
        return
    for form in formats:
        done = subprocess.run([sys.executable, __file__, folder, windows, output, form], capture_output=True, text=True)
        line = done.stdout.strip().splitlines()[-1] if done.returncode == 0 else ""
        failed = {"format": form, "error": done.stderr.strip().splitlines()[-1:]}
        print(line or json.dumps(failed), flush=True)


def quantize(folder: str, windows: str, output: Path, form: str) -> None:
    """Calibrate, quantize, and write the weights that the codes stand for."""
    import datasets
    import torch
    import transformers
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, QuantizationStrategy
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(1)
    method, bits, group_size, kind = form.split(":")
    strategy = QuantizationStrategy.GROUP if int(group_size) else QuantizationStrategy.CHANNEL
    weights = QuantizationArgs(
        num_bits=int(bits), symmetric=kind == "symmetric", strategy=strategy, group_size=int(group_size) or None
    )
    groups = {"weights": QuantizationScheme(targets=["Linear"], weights=weights)}
    common = {"config_groups": groups, "ignore": ["lm_head"]}
    ids = load_file(windows)["input_ids"]
    data = datasets.Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    if method == "GPTQ":
        recipe = [GPTQModifier(**common, actorder="static")]
    elif method == "AWQ":
        recipe = [_awq(common)]
    else:
        recipe = [QuantizationModifier(**common)]
    began = time.process_time()
    oneshot(
        model=model, dataset=data, recipe=recipe, num_calibration_samples=len(ids), max_seq_length=ids.shape[1],
        shuffle_calibration_samples=False,
    )  # fmt: skip
    seconds = time.process_time() - began
    output.mkdir(exist_ok=True)
    save_file(_dequantized(model), output / f"{form}.safetensors")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"format": form, "seconds": seconds, "peak_bytes": peak}))


def _awq(common: dict) -> object:
    from llmcompressor.modifiers.awq import AWQModifier

    return AWQModifier(**common, duo_scaling=False)


def _dequantized(model: "torch.nn.Module") -> dict:  # noqa: F821 - torch is imported where it is needed
    from compressed_tensors.quantization import fake_quantize

    tensors = {}
    for name, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        for key, tensor in module.named_parameters(recurse=False):
            if key == "weight" and scheme is not None:
                tensor = fake_quantize(tensor, module.weight_scale, module.weight_zero_point, scheme.weights)
            if key in ("weight", "bias"):
                tensors[f"{name}.{key}"] = tensor.detach().clone().contiguous()
    return tensors


if __name__ == "__main__":
    main()
