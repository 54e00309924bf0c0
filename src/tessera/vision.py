"""Images as a vision-language model reads them.

The processor saved with a model makes pixels of an image and says how many tokens stand for it. At their positions the
language tower reads what the vision tower and the projector make of the pixels, and what it makes of that in turn is
kept like the states of words. Around the image stands only what the processor itself puts there: the beginning token,
and for some models the end of an empty prompt.

Pixels take many times the room of an encoded image, so they are made batch by batch. They are always made by Pillow,
because other backends resize a little differently.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedConfig

from tessera.errors import UserError
from tessera.pictures import Picture, decode, upright_size

# Models that place one grid of patches in the residual stream, and the towers that make such a grid.
FAMILIES = ("llava", "paligemma")
TOWERS = ("clip_vision_model", "siglip_vision_model")
# Models that read an image and its prompt in both directions. They take token types for that, 0 all through the prompt.
PREFIXED = ("paligemma",)

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
BACKEND = "pil"


def reads_images(config: PreTrainedConfig) -> bool:
    """Whether images can be read with models of this config."""
    tower = getattr(config, "vision_config", None)
    return config.model_type in FAMILIES and tower is not None and tower.model_type in TOWERS


class Images:
    """A model's processor, opened to read one image an example. `key` is the config key of the model."""

    def __init__(self, folder: Path, config: PreTrainedConfig, key: str, *, context: int):
        _check_family(config, key)
        self.key, self.context = key, context
        self.processor = _processor(folder, key)
        self.token_id = int(config.image_token_id)
        self.prefixed = config.model_type in PREFIXED
        if self.processor.image_token_id != self.token_id:
            wrong = (
                f"its processor writes images as token {self.processor.image_token_id} and the model reads them as"
                f" {self.token_id}"
            )
            raise UserError(f"{key}.source", wrong, "save the processor that belongs to the model")
        self.known: dict[tuple[int, int], npt.NDArray[np.int32]] = {}

    @property
    def identity(self) -> dict[str, Any]:
        """What the pixels and the tokens depend on beside the model's files."""
        return {
            "prompt": self.processor.image_token,
            "processor": type(self.processor.image_processor).__name__,
            "backend": BACKEND,
            "pillow": PIL.__version__,
        }

    def ids(self, picture: Picture) -> npt.NDArray[np.int32]:
        """The tokens of an image and of what stands around it."""
        size = upright_size(picture)
        if size not in self.known:
            self.known[size] = self._ids(size)
        ids = self.known[size]
        if self.context and len(ids) > self.context:
            wrong = f"its image takes {len(ids)} tokens, and the model reads {self.context}"
            raise UserError(f"example '{picture.example}'", wrong, "use a model with a longer context")
        return ids

    def _ids(self, size: tuple[int, int]) -> npt.NDArray[np.int32]:
        """How many tokens stand for an image depends on its size at most, so an empty one tells."""
        try:
            given = self.processor(images=[Image.new("RGB", size)], text=[self.processor.image_token])
        except (TypeError, ValueError) as error:
            wrong = f"its processor does not read an image of {size[0]} x {size[1]} pixels ({error})"
            raise UserError(f"{self.key}.source", wrong, "save the processor that belongs to the model") from error
        ids, bos = list(given["input_ids"][0]), self.processor.tokenizer.bos_token_id
        return np.array(ids if bos is None or bos in ids else [bos, *ids], dtype=np.int32)

    def inputs(self, pictures: Sequence[Picture], length: int) -> dict[str, Tensor]:
        """What the model takes beside the tokens and their mask. `length` is that of the padded batch."""
        images = [decode(picture) for picture in pictures]
        pixels = self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
        types = {"token_type_ids": torch.zeros(len(images), length, dtype=torch.long)} if self.prefixed else {}
        return {"pixel_values": pixels, **types}

    def placed(self, features: Tensor, content: npt.NDArray[np.bool_]) -> Tensor:
        """The vision tower's features [images, patches, size] at the positions of the tokens that stand for them."""
        rows, patches, size = features.shape
        tokens = content.sum(axis=1)
        if rows != len(content) or (tokens != patches).any():
            wrong = (
                f"its processor writes {int(tokens.max())} tokens for an image, and its vision tower gives {patches}"
            )
            raise UserError(f"{self.key}.source", wrong, "save the processor that belongs to the model")
        places = features.new_zeros((rows, content.shape[1], size))
        places[torch.from_numpy(content).to(features.device)] = features.flatten(0, 1)
        return places


def projector(model: nn.Module) -> nn.Module:
    """The module between the towers: what it is given are the vision tower's features, as the model selects them."""
    found: nn.Module = model.get_submodule("multi_modal_projector")
    return found


def feature_size(config: PreTrainedConfig) -> int:
    """How many numbers the vision tower gives for a patch; some models join those of several of its layers."""
    layers = getattr(config, "vision_feature_layer", -1)
    return int(config.vision_config.hidden_size) * (len(layers) if isinstance(layers, Sequence) else 1)


# --- processors ----------------------------------------------------------------------------------------------------


def _check_family(config: PreTrainedConfig, key: str) -> None:
    if config.get_text_config() is config:
        mend = "set it to false, or use a vision-language model"
        raise UserError(f"{key}.images", "a language model cannot read images", mend)
    if not reads_images(config):
        tower = getattr(getattr(config, "vision_config", None), "model_type", "none")
        wrong = f"images are not read with models of type {config.model_type} (vision tower: {tower})"
        raise UserError(f"{key}.images", wrong, "set it to false, or use a model of PaliGemma's or LLaVA's kind")


def _processor(folder: Path, key: str) -> Any:
    # Importing it takes scipy along, which reading texts should not wait for.
    from transformers import AutoProcessor  # noqa: PLC0415

    mend = "save the model's processor into the same folder"
    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        raise UserError(f"{key}.source", "it has no image processor", mend)
    try:
        found = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False, backend=BACKEND)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{key}.source", f"its image processor cannot be opened ({error})", mend) from error
    if not hasattr(found, "image_processor"):
        raise UserError(f"{key}.source", f"its processor, a {type(found).__name__}, does not read images", mend)
    return found
