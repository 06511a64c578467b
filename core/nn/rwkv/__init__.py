"""RWKV: recurrent blocks that train in parallel, in the place of a Transformer's."""
