"""The cluster engine: Guide's training loop over verl's workers (Ray, FSDP or Megatron, vLLM or SGLang)."""
