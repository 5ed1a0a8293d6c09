"""Write a GGUF model as a transformers folder: `python -m cluster.gguf_to_hf MODEL.gguf FOLDER`.

vLLM, transformers and PEFT read that folder; its quality stays that of the quantised file. A program of
its own, so that the memory which torch and the unpacked weights take is gone when it ends.
"""

import argparse
import os
from pathlib import Path


def convert(gguf: Path, folder: Path) -> None:
    """Save model, tokenizer and generation settings of `gguf` as float16 under `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    torch.set_num_threads(1)
    source = str(gguf.parent)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf.name)
    # float16 halves the file and is finer than the 4-bit weights it comes from; readers choose their own dtype.
    # Without dequantize=True transformers keeps a quantisation record that it cannot save.
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float16,
    )
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    with arguments.gguf.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise SystemExit(f"error: {arguments.gguf} is no GGUF file")
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", OMP_NUM_THREADS="1")
    convert(arguments.gguf, arguments.folder)


if __name__ == "__main__":
    main()
