"""Which entries of a model's parameters hold the same channels, so that their order can be changed as one."""

from core.models.channels.parts import ChannelPart, find_parts
from core.models.channels.slots import Channels, Network, Slot
from core.models.channels.trace import trace_channels

__all__ = ["ChannelPart", "Channels", "Network", "Slot", "find_parts", "trace_channels"]
