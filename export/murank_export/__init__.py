"""Build-machine side of murank: checkpoints in, engine folder out.

This is the one package of the three that may import torch and transformers; importing it does not.
"""

from murank_export._offline import stay_offline as _stay_offline
from murank_export.export import Exported, export_engine
from murank_export.export_settings import EncoderSettings, ExportSettings

_stay_offline()

__all__ = ["EncoderSettings", "ExportSettings", "Exported", "export_engine"]
