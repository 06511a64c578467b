"""Pure procedures on tensors and modules that several techniques share: masks, grids, second-order updates, swaps."""
