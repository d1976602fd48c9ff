"""Messages of the HParams tab: the searched keys, and each trial's values and end."""

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from doppel_ray.config.search import Space, label


def is_numeric(space: Space) -> bool:
    """Return whether all values of a searched key are numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in space.examples())


def columns(search: Mapping[str, Space], scores: Iterable[str]) -> Summary.Value:
    """Return the columns of the tab: the searched keys, and the tags of the scores to compare trials by."""
    kinds = {True: api_pb2.DATA_TYPE_FLOAT64, False: api_pb2.DATA_TYPE_STRING}
    experiment = api_pb2.Experiment(
        hparam_infos=[api_pb2.HParamInfo(name=key, type=kinds[is_numeric(space)]) for key, space in search.items()],
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name), display_name=name.removeprefix("probe/"))
            for name in scores
        ],
    )
    return _value(metadata.EXPERIMENT_TAG, experiment=experiment)


def start(values: Mapping[str, Any], texts: Collection[str]) -> Summary.Value:
    """Return a trial's values at its start; those of the keys `texts` as words."""
    info = SessionStartInfo(start_time_secs=time.time())
    for key, value in values.items():
        if key in texts:
            info.hparams[key].string_value = label(value)
        else:
            info.hparams[key].number_value = value
    return _value(metadata.SESSION_START_INFO_TAG, session_start_info=info)


def end(succeeded: bool) -> Summary.Value:
    """Return the end of a trial."""
    status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
    info = SessionEndInfo(status=status, end_time_secs=time.time())
    return _value(metadata.SESSION_END_INFO_TAG, session_end_info=info)


def _value(tag: str, **data: Any) -> Summary.Value:
    about = metadata.create_summary_metadata(HParamsPluginData(**data))
    return Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)
