"""Build-machine side of murank: checkpoints in, engine folder out.

This is the one package of the three that may import torch and transformers; importing it does not.
"""

from murank_export.encoders.encoder_settings import EncoderSettings
from murank_export.engine.export_engine import Exported, export_engine
from murank_export.engine.export_settings import ExportSettings
from murank_export.sources.offline import stay_offline as _stay_offline

_stay_offline()

__all__ = ["EncoderSettings", "ExportSettings", "Exported", "export_engine"]
