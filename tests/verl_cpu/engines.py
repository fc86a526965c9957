"""verl's FSDP engines, registered for the device "cpu".

A critic builds its engine before the model's `external_lib` is imported, so this goes through VERL_USE_EXTERNAL_MODULES.
"""

from dataclasses import replace

import torch
from transformers import AutoModelForTokenClassification
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead, FSDPEngineWithValueHead


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPULanguageEngine(FSDPEngineWithLMHead):
    """The language model; one that is never trained, as a reference policy, is not offloaded, which takes pinned memory."""

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        config, self.engine_config = self.engine_config, replace(self.engine_config, forward_only=False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            self.engine_config = config


@EngineRegistry.register(model_type="value_model", backend=["fsdp", "fsdp2"], device="cpu")
class CPUValueEngine(FSDPEngineWithValueHead):
    """The value model without flash attention, which verl's loader asks for whatever the config says."""

    def _build_module(self) -> torch.nn.Module:
        config = self.model_config.hf_config
        config.num_labels, config.classifier_dropout = 1, 0.0
        return AutoModelForTokenClassification.from_pretrained(
            self.model_config.local_path, config=config, dtype=torch.float32, attn_implementation="sdpa"
        )
